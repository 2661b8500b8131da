#include "indexer/system_files.h"

#include <algorithm>
#include <array>

#include "indexer/linux_system.h"
#include "indexer/package_version.h"
#include "indexer/rpm_database.h"

namespace mirage {
namespace {

constexpr size_t kMaxBytes = 64 << 20;  // of all, but for rpm's database
constexpr size_t kNameOverhead = 128;        // of one, in memory, beside its path
constexpr size_t kElfHeadBytes = 64;
constexpr size_t kSmallFileBytes = 1 << 20;
constexpr std::string_view kStatus = "var/lib/dpkg/status", kStatusDirectory = "var/lib/dpkg/status.d/",
                           kApk = "lib/apk/db/installed", kLaterApk = "usr/lib/apk/db/installed", kRpmLog = "-wal";
constexpr std::array<std::string_view, 5> kTexts = {"etc/os-release", "usr/lib/os-release", "etc/debian_version",
                                                    "etc/hostname", "etc/alpine-release"};
constexpr std::array<std::string_view, 12> kPrograms = {"bin/bash", "usr/bin/bash",    "bin/ls",      "usr/bin/ls",
                                                        "bin/echo", "usr/bin/echo",    "bin/rm",      "usr/bin/rm",
                                                        "bin/sh",   "usr/bin/busybox", "bin/busybox", "usr/bin/sh"};

template <typename Names>
bool OneOf(const Names& names, std::string_view path) {
  return std::find(names.begin(), names.end(), path) != names.end();
}
// Distroless images have a file for each package, and another with its checksums.
bool IsStatusPart(std::string_view path) { return path.starts_with(kStatusDirectory) && !path.ends_with(".md5sums"); }

// The paths of rpm_database.h begin with a slash.
bool IsRpmDatabase(std::string_view path) {
  return std::any_of(std::begin(kRpmDatabasePaths), std::end(kRpmDatabasePaths),
                     [&](std::string_view known) { return path == known.substr(1); });
}
bool IsRpmLog(std::string_view path) {
  return path.ends_with(kRpmLog) && IsRpmDatabase(path.substr(0, path.size() - kRpmLog.size()));
}
bool IsOtherRpmDatabase(std::string_view path) {
  return std::any_of(std::begin(kOtherRpmDatabasePaths), std::end(kOtherRpmDatabasePaths),
                     [&](std::string_view known) { return path == known.substr(1); });
}

}  // namespace

bool IsSystemFile(std::string_view path) {
  return path == kStatus || path == kApk || path == kLaterApk || OneOf(kTexts, path) || OneOf(kPrograms, path) ||
         IsStatusPart(path) || IsRpmDatabase(path) || IsRpmLog(path) || IsOtherRpmDatabase(path);
}

void SystemFiles::Begin(const std::string& path) {
  const auto [file, is_new] = files_.try_emplace(path);
  if (is_new) bytes_ += path.size() + kNameOverhead;
  if (!IsRpmDatabase(path)) bytes_ -= file->second.size();
  file->second.clear();
  if (bytes_ <= kMaxBytes) return;
  bytes_ -= path.size() + kNameOverhead;
  files_.erase(file);
}

void SystemFiles::Add(const std::string& path, std::string_view bytes) {
  const auto file = files_.find(path);
  if (file == files_.end()) return;
  std::string& own = file->second;
  if (IsRpmDatabase(path)) {  // one byte more than there may be tells that it was too long
    own += bytes.substr(0, kMaxRpmDatabaseBytes + 1 - own.size());
    return;
  }
  const size_t most = OneOf(kPrograms, path)                       ? kElfHeadBytes
                      : IsRpmLog(path) || IsOtherRpmDatabase(path) ? 1
                      : OneOf(kTexts, path) || IsStatusPart(path)  ? kSmallFileBytes
                                                                   : kMaxBytes;
  bytes = bytes.substr(0, std::min(most - std::min(most, own.size()), kMaxBytes - bytes_));
  own += bytes;
  bytes_ += bytes.size();
}

void SystemFiles::ListRpmPackages(const std::atomic<bool>* interrupted, Described& described) const {
  for (const auto& [path, bytes] : files_) {
    if (!IsRpmDatabase(path)) continue;
    const auto log = files_.find(path + std::string(kRpmLog));
    if (log != files_.end() && !log->second.empty()) {
      described.why_not = fmt::format("/{}: its last changes are in a log beside it, which is not read", path);
      return;
    }
    auto read =
        bytes.size() > kMaxRpmDatabaseBytes ? Fail(EFBIG, "it is too large") : ReadRpmDatabase(bytes, interrupted);
    if (read) {
      described.packages = true;
      described.system.packages = std::move(*read);
    } else {
      described.why_not = fmt::format("/{}: {}", path, read.error().message);
    }
    return;
  }
  for (const auto& [path, bytes] : files_) {
    if (IsOtherRpmDatabase(path)) {
      described.why_not = fmt::format("/{} is an rpm database of a kind that is not read", path);
      return;
    }
  }
}

SystemFiles::Described SystemFiles::Describe(const std::atomic<bool>* interrupted) const {
  const auto bytes = [&](std::string_view path) {
    const auto file = files_.find(std::string(path));
    return file == files_.end() ? std::string_view{} : std::string_view(file->second);
  };
  Described described;
  SystemDescription& system = described.system;
  system.type = system.distro = system.hostname = system.arch = "unknown";
  const std::string_view release = bytes(kTexts[0]).empty() ? bytes(kTexts[1]) : bytes(kTexts[0]);
  described.found = !release.empty();
  if (described.found) {
    system.type = "linux";
    DescribeRelease(release, bytes("etc/debian_version"), system);
    if (const std::string name = FirstLine(bytes("etc/hostname")); !name.empty()) system.hostname = name;
    for (const std::string_view program : kPrograms) {
      const auto arch = ElfArchitecture(bytes(program));
      if (!arch) continue;
      system.arch = *arch;
      break;
    }
  }
  // A Debian may have the rpm program, and an empty database of it; an rpm system has no list of dpkg's that counts.
  if (FamilyOf(system.distro) == PackageFamily::kRpm) ListRpmPackages(interrupted, described);
  if (described.packages || !described.why_not.empty()) return described;
  if (files_.contains(std::string(kStatus))) {
    described.packages = true;
    system.packages = ParseDpkgStatus(bytes(kStatus));
  }
  for (const auto& [path, text] : files_) {
    if (!IsStatusPart(path)) continue;
    described.packages = true;
    auto more = ParseDpkgStatus("Status: install ok installed\n" + text);
    system.packages.insert(system.packages.end(), more.begin(), more.end());
  }
  for (const std::string_view path : {kApk, kLaterApk}) {
    if (!files_.contains(std::string(path))) continue;
    described.packages = true;
    auto more = ParseApkInstalled(bytes(path));
    system.packages.insert(system.packages.end(), more.begin(), more.end());
  }
  if (!described.packages) ListRpmPackages(interrupted, described);
  return described;
}

}  // namespace mirage
