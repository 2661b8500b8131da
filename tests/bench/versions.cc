#include "tests/bench/versions.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <tuple>
#include <vector>

#include <fmt/format.h>

#include "tests/bench/measure.h"

namespace mirage::bench {
namespace {

constexpr uint64_t kSeed = 20240229;
constexpr uintmax_t kPageBytes = 4096;
constexpr const char* kLogPath = "/var/log/daemon.log";

uint64_t NameHash(std::string_view name) {  // FNV-1a: the same everywhere
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

int Rank(std::string_view priority) {
  return priority == "required" ? 0 : priority == "important" ? 1 : priority == "standard" ? 2 : 3;
}

void AddLine(const std::string& path) { std::ofstream(path, std::ios::app) << "# one line more\n"; }

}  // namespace

Versions::Versions(const Options& options) : options_(options) {
  const std::string complete = options_.directory + "/complete";
  if (options_.reuse && std::filesystem::exists(complete)) return;
  std::filesystem::remove_all(options_.directory);
  for (int i = 1; i <= 3; ++i) std::filesystem::create_directories(path(i));
  if (options_.source.empty()) {
    TakePackages();
  } else {
    TakeSource();
  }
  WriteLog(path(1) + kLogPath, options_.log_mib / 10, false);
  Run(fmt::format("cp -a {}/. {}", Quote(path(1)), Quote(path(2))));
  const std::string directory = Quote(options_.directory);
  Run(fmt::format("cd {0} && sort -u v2.list | tar -C {1} --no-recursion -T - -cf - | tar -C v2 -xf -", directory,
                  options_.source.empty() ? "/" : Quote(options_.source)));
  WriteLog(path(2) + kLogPath, options_.log_mib, false);
  Run(fmt::format("cp -a {}/. {}", Quote(path(2)), Quote(path(3))));
  Upgrade();
  WriteLog(path(3) + kLogPath, options_.log_mib, true);
  Run(fmt::format("cd {} && rm -f *.list && touch complete && sync -f .", directory));
}

std::string Versions::path(int version) const { return fmt::format("{}/v{}", options_.directory, version); }

void Versions::TakePackages() const {
  std::istringstream installed(Output(
      "dpkg-query -W -f '${Priority}\\t${binary:Package}\\t${Maintainer}\\n' | grep -i debian | cut -f1,2"));
  std::vector<std::tuple<int, uint64_t, std::string>> packages;
  for (std::string priority, package; installed >> priority >> package;) {
    packages.emplace_back(Rank(priority), NameHash(package), package);
  }
  std::sort(packages.begin(), packages.end());
  const uint64_t tree_bytes = static_cast<uint64_t>(options_.tree_mib) << 20, more_bytes = tree_bytes / 5;
  uint64_t taken = 0, added = 0;
  int added_files = 0, number = 0;
  std::set<std::string> v1;
  std::ofstream v2_list(options_.directory + "/v2.list"), upgraded(options_.directory + "/upgraded.list");
  for (const auto& [rank, hash, package] : packages) {
    // A package that exists for one architecture alone, or for many, is told by its list's name.
    std::ifstream list("/var/lib/dpkg/info/" + package + ".list");
    if (!list) list.open("/var/lib/dpkg/info/" + package.substr(0, package.find(':')) + ".list");
    std::vector<std::string> names, regular;
    uint64_t bytes = 0;
    for (std::string path; std::getline(list, path);) {
      for (const char* merged : {"/bin/", "/sbin/", "/lib/", "/lib64/", "/lib32/"}) {
        if (path.starts_with(merged)) path.insert(0, "/usr");
      }
      struct stat st;
      if (lstat(path.c_str(), &st) != 0 || !(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))) continue;
      names.push_back(path.substr(1));
      if (!S_ISREG(st.st_mode)) continue;
      regular.push_back(names.back());
      bytes += static_cast<uint64_t>(st.st_size);
    }
    if (taken + bytes <= tree_bytes) {
      taken += bytes;
      v1.insert(names.begin(), names.end());
      if (++number % 15 != 7) continue;
      for (const std::string& name : regular) upgraded << name << '\n';
    } else if (added_files + static_cast<int>(names.size()) <= options_.more_files && added + bytes <= more_bytes) {
      added_files += static_cast<int>(names.size());
      added += bytes;
      for (const std::string& name : names) v2_list << name << '\n';
    }
  }
  std::ofstream v1_list(options_.directory + "/v1.list");
  for (const std::string& name : v1) v1_list << name << '\n';
  if (!v1_list.flush() || !v2_list.flush() || !upgraded.flush()) throw Trouble("write the lists of " + options_.directory);
  v1_list.close();
  Run(fmt::format("cd {} && tar -C / --no-recursion -T v1.list -cf - | tar -C v1 -xf -", Quote(options_.directory)));
}

// All of it but for what only v2 shall have, which is the last `more_files` of its files by the hash of their names.
void Versions::TakeSource() const {
  Run(fmt::format("cd {0} && (cd {1} && find . -xdev \\( -type f -o -type l \\)) | sed 's,^./,,' | sort >all.list && "
                  "while read -r f; do echo \"$(printf '%s' \"$f\" | cksum | cut -d' ' -f1) $f\"; done <all.list | "
                  "sort -n | cut -d' ' -f2- >shuffled.list && tail -n {2} shuffled.list | sort >v2.list && "
                  "comm -23 all.list v2.list >v1.list && awk 'int(NR / 100) % 15 == 7' v1.list >upgraded.list && "
                  "tar -C {1} --no-recursion -T v1.list -cf - | tar -C v1 -xf -",
                  Quote(options_.directory), Quote(options_.source), options_.more_files));
}

// Lines as a mail or web server writes them: zstd -3 makes about a fifth of them. The log of a smaller size is the
// beginning of the longer one.
void Versions::WriteLog(const std::string& path, int mib, bool edited) const {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  std::mt19937_64 random(kSeed);
  const uint64_t size = static_cast<uint64_t>(mib) << 20, whole = static_cast<uint64_t>(options_.log_mib) << 20;
  static constexpr const char* kVerbs[] = {"connect from", "accepted", "closed", "timeout after", "retry", "queued as"};
  uint64_t written = 0;
  for (uint64_t i = 0; written < size; ++i) {
    const uint64_t draw = random(), id = random();
    std::string line = fmt::format("2024-02-{:02} {:02}:{:02}:{:02}.{:03} host-{} service[{}]: {} 10.{}.{}.{} id={:012x} bytes={}\n",
                                   1 + i / 100'000 % 28, i / 4000 % 24, i / 66 % 60, i % 60, draw % 1000, draw >> 10 & 3,
                                   1000 + (draw >> 12 & 31), kVerbs[(draw >> 17) % std::size(kVerbs)], draw >> 20 & 15,
                                   draw >> 24 & 255, draw >> 32 & 255, id >> 16, draw >> 40 & 0xffff);
    const bool middle = written > whole / 4 && written < whole / 4 * 3;
    if (edited && middle && i % 1000 == 500) line = fmt::format("2024-03-01 host-9 auditor[7]: line {} was removed\n", i);
    file << line;
    written += line.size();
  }
  if (!file.flush()) throw Trouble("write " + path);
}

void Versions::Upgrade() const {
  std::ifstream list(options_.directory + "/upgraded.list");
  for (std::string name; std::getline(list, name);) {
    const std::string file_name = path(3) + "/" + name;
    std::error_code ignored;
    const uintmax_t size = std::filesystem::file_size(file_name, ignored);
    if (ignored || std::filesystem::is_symlink(file_name)) continue;
    std::fstream file(file_name, std::ios::in | std::ios::out | std::ios::binary);
    std::mt19937_64 random(kSeed + NameHash(name));
    for (uintmax_t page = 0; page + 8 < size; page += kPageBytes) {
      const uint64_t draw = random();
      file.seekp(static_cast<std::streamoff>(page + draw % std::min(kPageBytes - 4, size - page - 4)));
      const auto bytes = static_cast<uint32_t>(draw >> 32);
      file.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    }
  }
  std::istringstream texts(Output(fmt::format(
      "cd {} && find etc usr/share -type f -size -64k 2>/dev/null | sort | awk 'NR % 40 == 17 && n++ < 50'", Quote(path(3)))));
  for (std::string name; std::getline(texts, name);) AddLine(path(3) + "/" + name);
}

std::string Versions::Describe() const {
  std::string text;
  for (int i = 1; i <= 3; ++i) {
    text += fmt::format("v{}: {} entries, {} MiB\n", i, Output("find " + Quote(path(i)) + " | wc -l"),
                        Output("du -sm --apparent-size " + Quote(path(i)) + " | cut -f1"));
  }
  return text;
}

}  // namespace mirage::bench
