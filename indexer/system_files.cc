#include "indexer/system_files.h"

#include <algorithm>
#include <array>

#include "indexer/linux_system.h"

namespace mirage {
namespace {

constexpr size_t kMaxBytes = 64 << 20;       // of all
constexpr size_t kNameOverhead = 128;        // of one, in memory, beside its path
constexpr size_t kElfHeadBytes = 64;
constexpr size_t kSmallFileBytes = 1 << 20;
constexpr std::string_view kStatus = "var/lib/dpkg/status", kStatusDirectory = "var/lib/dpkg/status.d/",
                           kApk = "lib/apk/db/installed", kLaterApk = "usr/lib/apk/db/installed";
constexpr std::array<std::string_view, 5> kTexts = {"etc/os-release", "usr/lib/os-release", "etc/debian_version",
                                                    "etc/hostname", "etc/alpine-release"};
constexpr std::array<std::string_view, 12> kPrograms = {
    "bin/bash", "usr/bin/bash", "bin/ls", "usr/bin/ls",      "bin/echo",    "usr/bin/echo",
    "bin/rm",   "usr/bin/rm",   "bin/sh", "usr/bin/busybox", "bin/busybox", "usr/bin/sh"};

template <typename Names>
bool OneOf(const Names& names, std::string_view path) {
  return std::find(names.begin(), names.end(), path) != names.end();
}
// Distroless images have a file for each package, and another with its checksums.
bool IsStatusPart(std::string_view path) { return path.starts_with(kStatusDirectory) && !path.ends_with(".md5sums"); }

}  // namespace

bool IsSystemFile(std::string_view path) {
  return path == kStatus || path == kApk || path == kLaterApk || OneOf(kTexts, path) || OneOf(kPrograms, path) ||
         IsStatusPart(path);
}

void SystemFiles::Begin(const std::string& path) {
  const auto [file, is_new] = files_.try_emplace(path);
  if (is_new) bytes_ += path.size() + kNameOverhead;
  bytes_ -= file->second.size();
  file->second.clear();
  if (bytes_ <= kMaxBytes) return;
  bytes_ -= path.size() + kNameOverhead;
  files_.erase(file);
}

void SystemFiles::Add(const std::string& path, std::string_view bytes) {
  const auto file = files_.find(path);
  if (file == files_.end()) return;
  std::string& own = file->second;
  const size_t most = OneOf(kPrograms, path)                           ? kElfHeadBytes
                      : OneOf(kTexts, path) || IsStatusPart(path) ? kSmallFileBytes
                                                                       : kMaxBytes;
  bytes = bytes.substr(0, std::min(most - std::min(most, own.size()), kMaxBytes - bytes_));
  own += bytes;
  bytes_ += bytes.size();
}

SystemDescription SystemFiles::Describe(bool& found, bool& packages) const {
  const auto bytes = [&](std::string_view path) {
    const auto file = files_.find(std::string(path));
    return file == files_.end() ? std::string_view{} : std::string_view(file->second);
  };
  SystemDescription system;
  system.type = system.distro = system.hostname = system.arch = "unknown";
  const std::string_view release = bytes(kTexts[0]).empty() ? bytes(kTexts[1]) : bytes(kTexts[0]);
  found = !release.empty();
  if (found) {
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
  packages = false;
  if (files_.contains(std::string(kStatus))) {
    packages = true;
    system.packages = ParseDpkgStatus(bytes(kStatus));
  }
  for (const auto& [path, text] : files_) {
    if (!IsStatusPart(path)) continue;
    packages = true;
    auto more = ParseDpkgStatus("Status: install ok installed\n" + text);
    system.packages.insert(system.packages.end(), more.begin(), more.end());
  }
  for (const std::string_view path : {kApk, kLaterApk}) {
    if (!files_.contains(std::string(path))) continue;
    packages = true;
    auto more = ParseApkInstalled(bytes(path));
    system.packages.insert(system.packages.end(), more.begin(), more.end());
  }
  return system;
}

}  // namespace mirage
