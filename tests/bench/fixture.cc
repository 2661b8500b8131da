#include "tests/bench/fixture.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>

#include <fmt/format.h>

#include "tests/bench/measure.h"
#include "tests/testing/remove_all.h"

namespace mirage::bench {
namespace {

constexpr uint64_t kSeed = 20240229;

// Prose-like bytes that zstd -3 shrinks to about a third, as it does a system's files.
void AppendText(std::string* text, size_t size, std::mt19937_64& random) {
  static constexpr const char* kWords[] = {"config", "the",    "value", "/usr/lib/", "return", "0x",   "static",
                                           "of",     "module", "error", "option",    "if",     "name", "file"};
  while (text->size() < size) {
    const uint64_t draw = random();
    text->append(kWords[draw % std::size(kWords)]);
    if (draw & 0x10000) text->append(fmt::format("{:x}", draw >> 40));
    text->push_back((draw & 0x700000) == 0 ? '\n' : ' ');
  }
  text->resize(size);
}

bool IsMountPoint(const std::string& path) {
  return std::filesystem::exists(path) && Output("mountpoint -q " + Quote(path) + " && echo yes || true") == "yes";
}

void DropCaches() { Run("sync; echo 3 > /proc/sys/vm/drop_caches"); }

}  // namespace

Fixture::Fixture(const Options& options) : options_(options) {
  if (geteuid() != 0) throw Trouble("needs root: it mounts and drops caches");
  binary_ = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "mirage";
  Clean();
  std::filesystem::create_directories(mount());
  std::filesystem::create_directories(edit());
  std::filesystem::create_directories(native());
  try {
    const uint64_t source_mib = options_.source.empty()
                                    ? std::max(512, options_.files / 20)  // 31 KB a file, see Generate
                                    : std::stoull(Output("du -sm " + Quote(options_.source) + " | cut -f1"));
    const uint64_t image_mib = 2 * (source_mib * 3 / 2 + static_cast<uint64_t>(options_.big_mib)) + 512;
    Run(fmt::format("truncate -s {}M {} && mkfs.ext4 -q -F -i 4096 {}", image_mib, Quote(image()), Quote(image())));
    MountNative();
    const std::string v1 = native() + "/v1", v2 = native() + "/v2";
    if (options_.source.empty()) {
      Generate(v1);
    } else {
      Run(fmt::format("cp -a --one-file-system {} {}", Quote(options_.source), Quote(v1)));
    }
    std::mt19937_64 random(kSeed + 1);
    std::ofstream big(v1 + "/big-file", std::ios::binary);
    std::string block;
    for (int i = 0; i < options_.big_mib; ++i) {
      block.clear();
      AppendText(&block, 512 << 10, random);
      while (block.size() < 1 << 20) {
        const uint64_t noise = random();
        block.append(reinterpret_cast<const char*>(&noise), sizeof noise);
      }
      big.write(block.data(), static_cast<std::streamsize>(block.size()));
    }
    big.close();
    Run(fmt::format("cp -a {} {}", Quote(v1), Quote(v2)));
    Run(fmt::format("find {} -type f ! -name big-file -print0 | sort -z | awk 'BEGIN {{ RS = ORS = \"\\0\" }} NR % 100 == 50' | "
                    "while IFS= read -r -d '' file; do echo 'one line more' >> \"$file\"; done", Quote(v2)));
    DropCaches();
    Run(mirage("init " + Quote(library())));
    Run(mirage("import " + Quote(v1) + " bench/v1"));
    Run(mirage("import " + Quote(v2) + " bench/v2"));
  } catch (...) {
    Clean();
    throw;
  }
}

Fixture::~Fixture() {
  try {
    if (!options_.keep) Clean();
    UnmountMirage();
    UnmountNative();
  } catch (const Trouble& trouble) {
    fmt::print(stderr, "mirage-bench: clean up {}: {}\n", options_.work, trouble.what());
  }
}

void Fixture::Clean() const {
  UnmountMirage();
  if (IsMountPoint(edit())) Run(mirage("umount --discard " + Quote(edit())));
  if (IsMountPoint(scratch() + "-upper/merged")) Run("umount " + Quote(scratch() + "-upper/merged"));  // branch_workloads.cc
  UnmountNative();
  // Those of the workloads: peers, and libraries of their own.
  Run("findmnt -rn -o TARGET | { grep -F " + Quote(options_.work + "/") + " || true; } | while read -r mounted; do umount \"$mounted\"; done");
  if (const auto error = testing::RemoveAll(options_.work)) {
    throw Trouble(fmt::format("{}: {}", options_.work, error.message()));
  }
}

// Sizes spread evenly over the logarithm from 64 bytes to 256 KiB: a mean of 31 KB, half the files below 4 KiB.
void Fixture::Generate(const std::string& directory) const {
  std::mt19937_64 random(kSeed);
  std::string text;
  for (int i = 0; i < options_.files; ++i) {
    const std::string parent = fmt::format("{}/dir-{:03}/part-{}", directory, i / 100, i / 20 % 5);
    if (i % 20 == 0) std::filesystem::create_directories(parent);
    const double exponent = 6 + 12 * (static_cast<double>(random() % 10'000) / 10'000);
    text.clear();
    AppendText(&text, static_cast<size_t>(std::exp2(exponent)), random);
    std::ofstream file(fmt::format("{}/file-{:05}.txt", parent, i), std::ios::binary);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    if (i % 10 == 0) std::filesystem::create_symlink(fmt::format("file-{:05}.txt", i), fmt::format("{}/link-{:05}", parent, i));
  }
}

std::string Fixture::mirage(const std::string& arguments) const {
  return Quote(binary_) + " -q -L " + Quote(library()) + " " + arguments;
}

void Fixture::MountNative() const {
  if (!IsMountPoint(native())) Run(fmt::format("mount -o loop {} {}", Quote(image()), Quote(native())));
}
void Fixture::UnmountNative() const {
  if (IsMountPoint(native())) Run("umount " + Quote(native()));
}
void Fixture::MountMirage() const {
  if (!IsMountPoint(mount())) Run(mirage("mount " + Quote(mount())));
}
void Fixture::UnmountMirage() const {
  if (IsMountPoint(mount())) Run(mirage("umount " + Quote(mount())));
}

void Fixture::ChillNative() const {
  UnmountNative();
  MountNative();
  DropCaches();
}
void Fixture::ChillMirage() const {
  UnmountMirage();
  MountMirage();
  DropCaches();
}

std::string Fixture::Describe() const {
  const std::string v1 = Quote(native() + "/v1");
  return fmt::format("tree: {}: {} entries, {} MiB with a big file of {} MiB; v2 has 1 % of the files changed\n"
                     "library with v1 and v2: {} MiB; v1 as tar | zstd -3: {} MiB",
                     options_.source.empty() ? "generated" : options_.source, Output("find " + v1 + " | wc -l"),
                     Output("du -sm --apparent-size " + v1 + " | cut -f1"), options_.big_mib,
                     Output("du -sm " + Quote(library()) + " | cut -f1"),
                     Output("tar -C " + v1 + " -cf - . | zstd -3 -T0 -c | wc -c | awk '{ print int($1 / 1048576) }'"));
}

}  // namespace mirage::bench
