// An edit mount beside kernel overlayfs on ext4 over the same lower files, and beside fuse-overlayfs, which like it is asked by the
// kernel for each name: each pair begins with a fresh overlay on either side, both with their upper files on the working
// directory's own filesystem.
#include <filesystem>

#include <fmt/format.h>

#include "tests/bench/workloads.h"

namespace mirage::bench {
namespace {

constexpr int kUntarFiles = 10'000, kCreatedFiles = 20'000, kFsyncs = 300, kChmodFiles = 1000;
constexpr const char* kPackages = "vim-runtime git nano tree";  // 3,000 files

// What both sides do in `root`, after `prepare` did its untimed part there.
struct Task {
  std::string name;
  std::function<std::string(const std::string& root)> command;
  std::function<std::string(const std::string& root)> prepare = {};
  std::string mount_options = "system";
};

// 4 KiB at random places of a file, an fsync behind each.
std::string RandomWrites(const std::string& file) {
  return "perl -MIO::Handle -e '" +
         fmt::format("open(my $f, \"+<\", $ARGV[0]) or die; my $b = \"x\" x 4096; srand(7); for (1..{}) {{ sysseek($f, "
                     "4096 * int(rand(16384)), 0); syswrite($f, $b); $f->sync or die; }}", kFsyncs) +
         "' " + Quote(file);
}

// `chosen`: where the names of some files of the tree are put.
std::vector<Task> Tasks(const std::string& tar, const std::string& chosen) {
  const auto untar = [tar](const std::string& root) {
    return "mkdir " + Quote(root + "/new") + " && tar -xf " + Quote(tar) + " -C " + Quote(root + "/new");
  };
  return {
      {"branch-untar", untar},
      {"branch-rm", [](const std::string& root) { return "rm -rf " + Quote(root + "/new"); }, untar},
      {"branch-create",
       [](const std::string& root) {
         return fmt::format("mkdir {0}/new && cd {0}/new && for ((i = 0; i < {1}; i++)); do echo $i > $i; done", Quote(root),
                            kCreatedFiles);
       }},
      {"branch-write",
       [](const std::string& root) { return "dd if=/dev/zero of=" + Quote(root + "/zeros") + " bs=1M count=1024 conv=fsync"; }},
      {"branch-fsync", [](const std::string& root) { return RandomWrites(root + "/file"); },
       [](const std::string& root) {
         return "dd if=/dev/urandom of=" + Quote(root + "/file") + " bs=1M count=64 conv=fsync && sync -f " + Quote(root);
       }},
      {"branch-chmod",
       [chosen](const std::string& root) { return "cd " + Quote(root) + " && xargs -0 chmod g+w < " + Quote(chosen); },
       [chosen](const std::string& root) {
         return fmt::format("cd {} && find . -xdev -type f ! -name big-file -print0 | sort -z | sed -z -n 1,{}p > {}", Quote(root),
                            kChmodFiles, Quote(chosen));
       }},
      {"branch-append", [](const std::string& root) { return "echo 'one line more' >> " + Quote(root + "/big-file"); }},
  };
}

// Packages unpacked and configured in a chroot; the tree must be a Debian's.
Task InstallPackages(const std::string& packages) {
  return {"branch-dpkg",
          [](const std::string& root) {
            return "chroot " + Quote(root) +
                   " sh -c 'DEBIAN_FRONTEND=noninteractive dpkg --force-depends -i /packages/*.deb'";
          },
          [packages](const std::string& root) {
            return fmt::format(
                "[ -d {0} ] || {{ mkdir {0}.new && cd {0}.new && apt-get -q download {1} && mv {0}.new {0}; }}; "
                "cp -r {0} {2}/packages && sync -f {2}",
                Quote(packages), kPackages, Quote(root));
          },
          "system,allow_other"};  // as `mirage enter` mounts
}

}  // namespace

void AddBranch(const Fixture& fixture, std::vector<Workload>* workloads) {
  const std::string tar = fixture.scratch() + "-small.tar", upper = fixture.scratch() + "-upper";
  const std::string merged = upper + "/merged", edit = fixture.edit();
  const auto make_tar = [=] {
    Run(fmt::format("[ -e {0} ] || {{ d=$(mktemp -d {0}.XXXX) && for ((i = 0; i < {1}; i++)); do "
                    "[ $((i % 100)) = 0 ] && mkdir $d/$((i / 100)); head -c $((i * 7919 % 4000)) /dev/urandom > $d/$((i / 100))/$i; "
                    "done && tar -cf {0} -C $d . && rm -rf $d; }}", Quote(tar), kUntarFiles));
  };
  const auto fresh_edit = [=, &fixture](const std::string& options) {
    make_tar();
    if (Output("mountpoint -q " + Quote(edit) + " && echo yes || true") == "yes") {
      Run(fixture.mirage("umount --discard " + Quote(edit)));
    }
    Run(fixture.mirage("mount --edit bench -o " + options + " " + Quote(edit)));
  };
  const auto fresh_overlay = [=, &fixture](const std::string& mount) {
    make_tar();
    fixture.MountNative();
    Run(fmt::format("mountpoint -q {0}/merged && umount {0}/merged; rm -rf {0} && mkdir -p {0}/upper {0}/work {0}/merged && "
                    "{2} -o lowerdir={1}/v2,upperdir={0}/upper,workdir={0}/work {0}/merged",
                    Quote(upper), Quote(fixture.native()), mount));
  };
  const auto fresh_kernel_overlay = [=] { fresh_overlay("mount -t overlay overlay"); };
  const auto fresh_fuse_overlay = [=] { fresh_overlay("fuse-overlayfs 2>/dev/null"); };
  const bool has_fuse_overlayfs = Output("command -v fuse-overlayfs >/dev/null && echo yes || true") == "yes";
  std::vector<Task> tasks = Tasks(tar, fixture.scratch() + "-chosen");
  if (std::filesystem::exists(fixture.native() + "/v2/usr/bin/dpkg")) {
    tasks.push_back(InstallPackages(fixture.scratch() + "-packages"));
  }
  for (const Task& task : tasks) {
    const auto prepared = [task](const std::function<void()>& mount, const std::string& root) {
      return [=] {
        mount();
        if (task.prepare) Run(task.prepare(root));
      };
    };
    const auto edit_of_task = [=] { fresh_edit(task.mount_options); };
    workloads->push_back({task.name, "kernel overlayfs over ext4",
                          {prepared(edit_of_task, edit), task.command(edit)},
                          {prepared(fresh_kernel_overlay, merged), task.command(merged)}});
    if (!has_fuse_overlayfs) continue;
    workloads->push_back({task.name + "@fuse-overlayfs", "fuse-overlayfs over ext4",
                          {prepared(edit_of_task, edit), task.command(edit)},
                          {prepared(fresh_fuse_overlay, merged), task.command(merged)}});
  }
  // Ten thousand new files: the commit, against an import of the same tree from a directory into the same library. Each time
  // with other bytes, so that nothing is known already.
  const std::string tree = Quote(fixture.scratch() + "-tree");
  const auto unpack = [tar](const std::string& directory) {
    return fmt::format("d={0}; mkdir -p $d && tar -xf {1} -C $d && find $d -type f -exec perl -e "
                       "'for (@ARGV) {{ open(my $f, \">>\", $_) or die; print $f rand() }}' {{}} +",
                       directory, Quote(tar));
  };
  workloads->push_back({"branch-commit-new", "mirage import of such a tree",
                        {[=] {
                           fresh_edit("system");
                           Run(unpack(Quote(edit + "/") + "new-$(date +%s%N)"));
                         },
                         fixture.mirage("umount " + Quote(edit))},
                        {[=] {
                           make_tar();
                           Run("rm -rf " + tree);
                           Run(unpack(tree));
                         },
                         fixture.mirage("import " + tree + " new-$(date +%s%N)")}});
}

}  // namespace mirage::bench
