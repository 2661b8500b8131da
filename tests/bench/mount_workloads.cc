#include "tests/bench/mount_workloads.h"

#include <filesystem>
#include <functional>

#include <fmt/format.h>

namespace mirage::bench {
namespace {

constexpr int kRandomReads = 2000;
constexpr int kManyVersions = 1000;

struct Peer {
  std::string name, needs, make, mount;  // `make SOURCE IMAGE`, `mount IMAGE DIRECTORY`
};
const Peer kPeers[] = {
    {"squashfs", "mksquashfs && grep -qw squashfs /proc/filesystems",
     "mksquashfs \"$1\" \"$2\" -comp zstd -Xcompression-level 3 -noappend -quiet -no-progress",
     "mount -t squashfs -o loop \"$1\" \"$2\""},
    {"squashfuse", "squashfuse_ll && command -v mksquashfs",
     "mksquashfs \"$1\" \"$2\" -comp zstd -Xcompression-level 3 -noappend -quiet -no-progress",
     "squashfuse_ll \"$1\" \"$2\""},
    {"erofs", "mkfs.erofs && grep -qw erofs /proc/filesystems", "mkfs.erofs -zlz4hc \"$2\" \"$1\"",
     "mount -t erofs -o loop \"$1\" \"$2\""},
};

std::string Call(const std::string& script, const std::string& first, const std::string& second) {
  return fmt::format("set -- {} {}; {}", Quote(first), Quote(second), script);
}

using Command = std::function<std::string(const std::string& tree)>;
struct Reading {
  std::string name, what;
  Command command;  // over one version's tree
};

std::string GrepTree(const std::string& tree) {
  return "grep -rIs --exclude=big-file no-such-text-anywhere " + Quote(tree) + "; [ $? -eq 1 ]";
}

// perl-base is on every Debian; a dd a read would measure fork(2).
std::string ReadAtRandom(const std::string& tree) {
  return fmt::format(
      "perl -e 'srand 7; open F, \"<\", shift or die; my $n = (-s F) < 60e6 ? -s F : 60e6; for (1 .. {}) {{ "
      "sysseek F, 4096 * int(rand($n / 4096)), 0; sysread(F, my $b, 4096) or die }}' {}",
      kRandomReads, Quote(tree + "/big-file"));
}

std::vector<Reading> Readings() {
  return {{"find", "find -ls", [](const std::string& tree) { return "find " + Quote(tree) + " -ls"; }},
          {"grep", "grep -r", GrepTree},
          {"big-file", "cat", [](const std::string& tree) { return "cat " + Quote(tree + "/big-file"); }},
          {"random", fmt::format("{} reads of 4 KiB", kRandomReads), ReadAtRandom}};
}

// A side whose caches are empty, and one that has just done the same.
Side Cold(std::function<void()> chill, const std::string& command) { return {std::move(chill), command}; }
Side Warm(std::function<void()> mount, const std::string& command) {
  return {[mount = std::move(mount), command] {
            mount();
            Run(command);
          },
          command};
}

std::string PeerDirectory(const Fixture& fixture, const Peer& peer) { return fixture.scratch() + "-" + peer.name; }

void MountPeer(const Fixture& fixture, const Peer& peer) {
  const std::string directory = PeerDirectory(fixture, peer), image = directory + ".img";
  if (!std::filesystem::exists(image)) {
    fixture.MountNative();
    std::filesystem::create_directories(directory);
    Run(Call(peer.make, fixture.native() + "/v1", image));
  }
  Run("mountpoint -q " + Quote(directory) + " || { " + Call(peer.mount, image, directory) + "; }");
}

void ChillPeer(const Fixture& fixture, const Peer& peer) {
  const std::string directory = Quote(PeerDirectory(fixture, peer));
  Run("! mountpoint -q " + directory + " || umount " + directory);
  MountPeer(fixture, peer);
  Run("sync; echo 3 > /proc/sys/vm/drop_caches");
}

void AddPeers(const Fixture& fixture, std::vector<Workload>* workloads) {
  for (const Peer& peer : kPeers) {
    if (Output("{ command -v " + peer.needs + "; } >/dev/null && echo yes || true") != "yes") continue;
    for (const Reading& reading : Readings()) {
      const std::string ours = reading.command(fixture.mount() + "/bench/v1");
      const std::string theirs = reading.command(PeerDirectory(fixture, peer));
      const std::string against = reading.what + ", " + peer.name;
      workloads->push_back({reading.name + "-cold@" + peer.name, against,
                            Cold([&fixture] { fixture.ChillMirage(); }, ours),
                            Cold([&fixture, &peer] { ChillPeer(fixture, peer); }, theirs)});
      workloads->push_back({reading.name + "-warm@" + peer.name, against,
                            Warm([&fixture] { fixture.MountMirage(); }, ours),
                            Warm([&fixture, &peer] { MountPeer(fixture, peer); }, theirs)});
    }
  }
}

// The client on one core and the daemon on the same, or on the other, where it cannot follow (mirfs/thread_placement.h).
void AddPinned(const Fixture& fixture, std::vector<Workload>* workloads) {
  const auto mount_on = [&fixture](const std::string& core) {
    fixture.UnmountMirage();
    Run("taskset -c " + core + " " + fixture.mirage("mount " + Quote(fixture.mount())));
  };
  for (const auto& [name, core] : {std::pair("same-core", "0"), std::pair("two-cores", "1")}) {
    for (const Reading& reading : Readings()) {
      if (reading.name != "find" && reading.name != "grep") continue;
      const std::string ours = "taskset -c 0 bash -c " + Quote(reading.command(fixture.mount() + "/bench/v1"));
      const std::string theirs = "taskset -c 0 bash -c " + Quote(reading.command(fixture.native() + "/v1"));
      workloads->push_back({reading.name + "-cold-" + name, reading.what + ", ext4, pinned",
                            Cold(
                                [mount_on, core] {
                                  mount_on(core);
                                  Run("sync; echo 3 > /proc/sys/vm/drop_caches");
                                },
                                ours),
                            Cold([&fixture] { fixture.ChillNative(); }, theirs)});
    }
  }
}

}  // namespace

std::vector<Workload> MountWorkloads(const Fixture& fixture) {
  std::vector<Workload> workloads;
  const std::string v1 = fixture.mount() + "/bench/v1", v2 = fixture.mount() + "/bench/v2";
  const Reading random = Readings().back();
  workloads.push_back({"random-cold", random.what + ", ext4",
                       Cold([&fixture] { fixture.ChillMirage(); }, random.command(v1)),
                       Cold([&fixture] { fixture.ChillNative(); }, random.command(fixture.native() + "/v1"))});
  // Pages are shared between versions: what v1 has warmed is warm in v2.
  workloads.push_back({"grep-v2-after-v1", "grep -r v1, cold, on the mount",
                       Cold(
                           [&fixture, v1] {
                             fixture.ChillMirage();
                             Run(GrepTree(v1));
                           },
                           GrepTree(v2)),
                       Cold([&fixture] { fixture.ChillMirage(); }, GrepTree(v1))});
  // A ratio of 2 is no gain at all, of 1 twice the throughput.
  const std::string two = "( " + GrepTree(v1) + " ) & ( " + GrepTree(v1) + " ); wait";
  workloads.push_back({"two-readers-warm", "one grep -r on the mount", Warm([&fixture] { fixture.MountMirage(); }, two),
                       Warm([&fixture] { fixture.MountMirage(); }, GrepTree(v1))});
  workloads.push_back({"two-readers-cold", "one grep -r on the mount", Cold([&fixture] { fixture.ChillMirage(); }, two),
                       Cold([&fixture] { fixture.ChillMirage(); }, GrepTree(v1))});
  AddPinned(fixture, &workloads);
  AddPeers(fixture, &workloads);

  const std::string many = fixture.scratch() + "-many";
  const std::string mirage = Quote(fixture.binary()) + " -q -L " + Quote(many + "/library") + " ";
  const std::string mountpoint = Quote(many + "/mnt");
  const auto make_many = [=] {
    Run("! mountpoint -q " + mountpoint + " || umount " + mountpoint);
    if (std::filesystem::exists(many)) return;
    Run("mkdir -p " + Quote(many + "/mnt") + " " + Quote(many + "/tree/etc") + " && " + mirage + "init");
    Run(fmt::format("for i in $(seq {}); do echo $i > {}; {} import {} many; done", kManyVersions,
                    Quote(many + "/tree/etc/version"), mirage, Quote(many + "/tree")));
  };
  const Side loop{[&fixture] { fixture.UnmountNative(); }, "mount -o loop " + Quote(fixture.image()) + " " +
                                                               Quote(fixture.native()) + " && ls " +
                                                               Quote(fixture.native() + "/v1")};
  for (const auto& [name, path] : {std::pair("ls-1000-root", ""), std::pair("ls-1000-tags", "/many"),
                                   std::pair("ls-1000-version", "/many/v500")}) {
    workloads.push_back({name,
                         "mount -o loop; ls",
                         {make_many, mirage + "mount " + mountpoint + " && ls " + Quote(many + "/mnt" + path)},
                         loop});
  }
  return workloads;
}

}  // namespace mirage::bench
