// mirage-bench-disk: how fast disks come in, by each reader, beside virt-tar-out of the same disk in the same run; and
// how much faster a second version does, of which 1 % of the files changed.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tests/bench/measure.h"

namespace mirage::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string image, work = "/var/tmp", binary;
  int rounds = 3;
  bool emulate = false, keep = false, json = false, guestfs = true;
};

struct Import {
  double seconds = 0, appliance = 0, inspection = 0;
  uint64_t files = 0, unchanged = 0, bytes = 0;
  double work() const { return seconds - appliance - inspection; }
};

class Disk {
 public:
  explicit Disk(Options options) : options_(std::move(options)), work_(options_.work + "/mirage-bench-disk") {
    if (options_.emulate) setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg", 1);
    fs::create_directories(work_);
    MakeFirst();
    MakeSecond();
  }
  ~Disk() {
    std::error_code ignored;
    if (!options_.keep) fs::remove_all(work_, ignored);
  }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  void Run() {
    for (int round = 0; round < options_.rounds; ++round) Round(round);
    Print();
  }

 private:
  std::string Path(const std::string& name) const { return work_ + "/" + name; }

  // The largest partition of a disk (or the disk) on a mount of its own, `script` run in it.
  std::string InMount(const std::string& image, const std::string& mode, const std::string& script) const {
    return fmt::format(
        "set -e; mkdir -p {1}; read -r start sectors < <(partx -gbo START,SECTORS {0} 2>/dev/null | sort -k2n | tail "
        "-1) || true; "
        "mount -o loop,{2},offset=$((${{start:-0}} * 512)) {0} {1}; trap 'cd /; umount {3}' EXIT; {4}",
        Quote(image), Quote(Path("mnt")), mode, Path("mnt"), script);
  }

  // A disk whose files were written by a kernel, as an installation's are: what mke2fs -d writes is not trusted to have
  // kept its bytes.
  void MakeFirst() {
    if (options_.keep && fs::exists(Path("first.raw"))) return;
    if (!options_.image.empty()) {
      Run_(fmt::format("cp --sparse=always {} {}", Quote(options_.image), Quote(Path("first.raw"))));
      return;
    }
    Run_(fmt::format("{} {} >&2", Quote(MIRAGE_SOURCE_DIR "/examples/make_disks.sh"), Quote(Path("debian"))));
    Run_(fmt::format(
        "cd {} && rm -f first.raw && truncate -s 1G first.raw && echo 'start=2048,type=83' | sfdisk -q first.raw && "
        "mkfs.ext4 -q -F -U 5b9dd4b0-6f4e-4d6c-9d3e-2f0d1c3a7e11 -E offset=1048576 first.raw 1047552k && sleep 1",
        Quote(work_)));
    Run_(InMount(Path("first.raw"), "rw",
                 fmt::format("cp -a {}/. {}/; sync; sleep 3; touch {}/etc/.last", Quote(Path("debian/v1")),
                             Quote(Path("mnt")), Quote(Path("mnt")))));
  }
  void MakeSecond() {
    if (options_.keep && fs::exists(Path("second.raw"))) return;
    Run_(fmt::format("cp --sparse=always {} {}", Quote(Path("first.raw")), Quote(Path("second.raw"))));
    Run_(InMount(Path("second.raw"), "rw",
                 fmt::format("cd {}; find . -xdev -type f -size +0 | sort | awk 'NR % 100 == 50' | "
                             "while read -r f; do echo changed >>\"$f\"; done; cd /",
                             Quote(Path("mnt")))));
  }
  static void Run_(const std::string& command) { bench::Run(command); }

  Import Mirage(const std::string& library, const std::string& source, const std::string& arguments) const {
    const std::string mirage = Quote(options_.binary + "/mirage") + " -q -L " + Quote(Path(library));
    const auto json =
        nlohmann::json::parse(Output(fmt::format("{} --json import {} {} disk", mirage, arguments, Quote(source))));
    return {json["seconds"], json["appliance_seconds"], json["inspection_seconds"],
            json["files"],   json["unchanged_files"],   json["bytes"]};
  }
  void Fresh(const std::string& library) const {
    Run_(fmt::format("rm -rf {0} && {1} -q -L {0} init", Quote(Path(library)), Quote(options_.binary + "/mirage")));
  }
  void Note(const std::string& name, double seconds) { times_[name].push_back(seconds); }

  void Round(int round) {
    const std::string first = Path("first.raw"), second = Path("second.raw");
    Run_("cat " + Quote(first) + " " + Quote(second) + " >/dev/null");  // in the page cache, for all sides
    const auto direct = [&] {
      Fresh("direct");
      one_ = Mirage("direct", first, "--reader direct");
      Note("direct first", one_.seconds);
      const Import two = Mirage("direct", second, "--reader direct");
      Note("direct second", two.seconds);
      unchanged_["direct"] = two.unchanged;
      Note("direct second, paranoid", Mirage("direct", second, "--reader direct --paranoid").seconds);
    };
    const auto directory = [&] {
      Fresh("directory");
      const std::string mirage = Quote(options_.binary + "/mirage") + " -q -L " + Quote(Path("directory"));
      const auto json = nlohmann::json::parse(Output(
          InMount(first, "ro",
                  fmt::format("cat $(find {0} -xdev -type f) >/dev/null 2>&1 || true; {1} --json import {0} disk",
                              Quote(Path("mnt")), mirage))));
      Note("directory first", json["seconds"]);
    };
    if (round % 2 == 0) {
      direct();
      directory();
    } else {
      directory();
      direct();
    }
    if (!options_.guestfs) return;
    const auto native = [&] {
      const double up = Meter("guestfish --ro -i --format=raw -a " + Quote(first) + " exit").seconds;
      Note("guestfish: launch, inspection", up);
      const double all = Meter("virt-tar-out --format=raw -a " + Quote(first) + " / - >/dev/null").seconds;
      Note("virt-tar-out", all);
      Note("virt-tar-out, without these", all - up);
    };
    const auto ours = [&] {
      Fresh("guestfs");
      const Import one = Mirage("guestfs", first, "--reader guestfs");
      Note("guestfs: launch", one.appliance);
      Note("guestfs: inspection", one.inspection);
      Note("guestfs first, with these", one.seconds);
      Note("guestfs first", one.work());
      const Import two = Mirage("guestfs", second, "--reader guestfs");
      Note("guestfs second", two.work());
      unchanged_["guestfs"] = two.unchanged;
    };
    if (round % 2 == 0) {
      native();
      ours();
    } else {
      ours();
      native();
    }
  }

  double Of(const std::string& name) const { return Median(times_.at(name)); }
  void Ratio(const std::string& a, const std::string& b, std::string_view wanted) const {
    if (!times_.contains(a) || !times_.contains(b)) return;
    std::vector<double> ratios;
    for (size_t i = 0; i < times_.at(a).size(); ++i) ratios.push_back(times_.at(a)[i] / times_.at(b)[i]);
    if (options_.json) {
      fmt::print("{}\n", nlohmann::json{{"ratio", Median(ratios)}, {"of", a}, {"to", b}, {"wanted", wanted}}.dump());
    } else {
      fmt::print("{:<28} / {:<28} {:8.3f}   wanted: {}\n", a, b, Median(ratios), wanted);
    }
  }
  void Print() const {
    if (!options_.json) {
      fmt::print("{} files, {:.0f} MiB; 1 % changed in the second version; medians of {} rounds\n", one_.files,
                 static_cast<double>(one_.bytes) / (1 << 20), options_.rounds);
    }
    for (const auto& [name, seconds] : times_) {
      if (options_.json) {
        fmt::print("{}\n", nlohmann::json{{"name", name}, {"seconds", seconds}, {"median", Of(name)}}.dump());
      } else {
        fmt::print("{:<32} {:8.2f} s\n", name, Of(name));
      }
    }
    for (const auto& [reader, count] : unchanged_) {
      if (!options_.json) fmt::print("{}: {} files not read again\n", reader, count);
    }
    Ratio("guestfs first, with these", "virt-tar-out", "at most 1.25");
    Ratio("guestfs first", "virt-tar-out, without these", "stated: the metadata that tar has not");
    Ratio("virt-tar-out, without these", "direct first", "at least 20, emulated");
    Ratio("direct first", "directory first", "at most 1.5");
    Ratio("guestfs second", "guestfs first", "at most 0.35");
    Ratio("direct second", "direct first", "stated: the metadata");
  }

  const Options options_;
  const std::string work_;
  Import one_;
  std::map<std::string, std::vector<double>> times_;
  std::map<std::string, uint64_t> unchanged_;
};

}  // namespace
}  // namespace mirage::bench

int main(int argc, char** argv) {
  using namespace mirage::bench;
  Options options;
  bool no_guestfs = false;
  CLI::App app("Measures the import of a disk by each reader, in one run with virt-tar-out.", "mirage-bench-disk");
  app.add_option("IMAGE", options.image, "a raw disk (default: a Debian one made by examples/make_disks.sh)")
      ->check(CLI::ExistingFile);
  app.add_option("-n,--rounds", options.rounds, "rounds; medians are reported (default 3)")->check(CLI::Range(1, 1000));
  app.add_option("--work", options.work, "work in DIR/mirage-bench-disk (default /var/tmp)")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--emulate", options.emulate, "no hardware acceleration, on either side");
  app.add_flag("--no-guestfs", no_guestfs, "the direct reader and directories alone");
  app.add_flag("--keep", options.keep, "leave the working directory, and use the disks that are there");
  app.add_flag("--json", options.json, "one JSON object a line");
  CLI11_PARSE(app, argc, argv);
  options.guestfs = !no_guestfs;
  try {
    if (geteuid() != 0) throw Trouble("loop mounts need root");
    options.binary = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    Disk(options).Run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "mirage-bench-disk: {}\n", error.what());
    return 1;
  }
  return 0;
}
