#include "tests/bench/workloads.h"

#include <atomic>
#include <memory>

#include <fmt/format.h>

namespace mirage::bench {
namespace {

// diff(1) exits 1 when it finds differences, which here it must.
std::string DiffTrees(const std::string& root) {
  return fmt::format("diff -r --no-dereference {0}/v1 {0}/v2; [ $? -eq 1 ]", Quote(root));
}

// The same reading command over the mount and over ext4, cold and warm.
void AddReading(const Fixture& fixture, const std::string& name, const std::string& what,
                const std::function<std::string(const std::string& root)>& command, std::vector<Workload>* workloads) {
  const std::string over_mount = command(fixture.mount() + "/bench"), over_ext4 = command(fixture.native());
  workloads->push_back({name + "-cold", what + ", ext4",
                        {[&fixture] { fixture.ChillMirage(); }, over_mount},
                        {[&fixture] { fixture.ChillNative(); }, over_ext4}});
  workloads->push_back({name + "-warm", what + ", ext4",
                        {[&fixture, over_mount] { fixture.MountMirage(); Run(over_mount); }, over_mount},
                        {[&fixture, over_ext4] { fixture.MountNative(); Run(over_ext4); }, over_ext4}});
}

void AddImports(const Fixture& fixture, std::vector<Workload>* workloads) {
  const std::string tar = "tar -C " + Quote(fixture.native() + "/v1") + " -cf - .";
  const std::string tar_v2 = "tar -C " + Quote(fixture.native() + "/v2") + " -cf - .";
  const std::string scratch = Quote(fixture.scratch());
  const std::string mirage = Quote(fixture.binary()) + " -q -L " + scratch + " ";
  const std::string read_all = tar + " | cat >/dev/null";  // both sides find the source in the page cache
  const Side import{[=] { Run("rm -rf " + scratch); Run(mirage + "init"); Run(read_all); },
                    mirage + "import " + Quote(fixture.native() + "/v1") + " bench/v1"};
  const auto native = [=](const std::string& command) {
    return Side{[=] { Run("rm -rf " + scratch + "; mkdir " + scratch); Run(read_all); }, command};
  };
  workloads->push_back({"import-hash", "tar | sha256sum", import, native(tar + " | sha256sum")});
  workloads->push_back({"import-store", "tar | zstd -3 -T2", import,
                        native(tar + " | zstd -q -3 -T2 -o " + scratch + "/tar.zst && sync -f " + scratch)});
  workloads->push_back({"import-hash-store", "tar | tee (sha256sum) | zstd -3 -T2", import,
                        native(tar + " | tee >(sha256sum) | zstd -q -3 -T2 -o " + scratch + "/tar.zst && sync -f " + scratch)});
  workloads->push_back({"import-changed", "1 % changed; tar v2 | sha256sum",
                        {[=] { import.prepare(); Run(import.command); Run(tar_v2 + " | cat >/dev/null"); },
                         mirage + "import " + Quote(fixture.native() + "/v2") + " bench/v2"},
                        {[=] { Run(tar_v2 + " | cat >/dev/null"); }, tar_v2 + " | sha256sum"}});
}

// Ten files edited: what unmounting costs, against syncing the same edits on ext4.
void AddCommit(const Fixture& fixture, std::vector<Workload>* workloads) {
  const auto edit = [](const std::string& root) {
    return fmt::format("find {} -type f -name '*[0-9a-z]' -size -64k | sort | awk 'NR % 50 == 7 && n++ < 10' | "
                       "while read -r file; do echo edited >> \"$file\"; done", Quote(root));
  };
  workloads->push_back(
      {"commit-ten-files", "the same edits, sync -f",
       {[&fixture, edit] {
          Run(fixture.mirage("mount --edit bench " + Quote(fixture.edit())));
          Run(edit(fixture.edit()));
        },
        fixture.mirage("umount " + Quote(fixture.edit()))},
       {[&fixture, edit] { fixture.MountNative(); Run(edit(fixture.native() + "/v2")); },
        "sync -f " + Quote(fixture.native())}});
}

}  // namespace

std::vector<Workload> Workloads(const Fixture& fixture) {
  std::vector<Workload> workloads;
  AddReading(fixture, "find", "find -ls", [](const std::string& root) { return "find " + Quote(root + "/v1") + " -ls"; },
             &workloads);
  AddReading(fixture, "grep", "grep -r",
             [](const std::string& root) {
               return "grep -rIs --exclude=big-file no-such-text-anywhere " + Quote(root + "/v1") + "; [ $? -eq 1 ]";
             },
             &workloads);
  AddReading(fixture, "big-file", "cat", [](const std::string& root) { return "cat " + Quote(root + "/v1/big-file"); },
             &workloads);
  AddReading(fixture, "diff", "diff -r v1 v2", DiffTrees, &workloads);
  // Everything after this point leaves more behind than it found: the reading above comes first.
  AddImports(fixture, &workloads);
  AddDiskImports(fixture, &workloads);
  const auto number = std::make_shared<std::atomic<int>>(0);
  const std::string tag_file = Quote(fixture.scratch() + "-tag");
  workloads.push_back({"publish", "dd conv=fsync of 4 KiB",
                       {[=] { Run("echo bench-" + std::to_string(++*number) + " > " + tag_file); },
                        fixture.mirage("tag bench/v1 $(cat " + tag_file + ")")},
                       {[] {}, "dd if=/dev/zero of=" + tag_file + "-dd bs=4k count=1 conv=fsync"}});
  workloads.push_back({"mount-ls", "mount -o loop; ls",
                       {[&fixture] { fixture.UnmountMirage(); },
                        fixture.mirage("mount " + Quote(fixture.mount())) + " && ls " + Quote(fixture.mount() + "/bench/v1")},
                       {[&fixture] { fixture.UnmountNative(); },
                        "mount -o loop " + Quote(fixture.image()) + " " + Quote(fixture.native()) + " && ls " +
                            Quote(fixture.native() + "/v1")}});
  AddBranch(fixture, &workloads);
  AddCommit(fixture, &workloads);
  return workloads;
}

}  // namespace mirage::bench
