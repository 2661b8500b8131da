#include "indexer/linux_system.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdint>
#include <map>

namespace mirage {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

template <typename Visit>
void ForEachLine(std::string_view text, const Visit& visit) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    visit(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at < line.size();) {
    while (at < line.size() && IsSpace(line[at])) ++at;
    size_t end = at;
    while (end < line.size() && !IsSpace(line[end])) ++end;
    if (end > at) words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

// fstab writes a space as \040.
std::string Unescape(std::string_view word) {
  std::string out;
  for (size_t i = 0; i < word.size(); ++i) {
    const std::string_view digits = word.substr(i + 1, 3);
    if (word[i] == '\\' && digits.size() == 3 &&
        std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '7'; })) {
      out += static_cast<char>((digits[0] - '0') << 6 | (digits[1] - '0') << 3 | (digits[2] - '0'));
      i += 3;
    } else {
      out += word[i];
    }
  }
  return out;
}

std::string Unquote(std::string_view value) {
  value = Trim(value);
  if (value.size() >= 2 && (value.front() == '"' || value.front() == '\'') && value.back() == value.front()) {
    value = value.substr(1, value.size() - 2);
  }
  return std::string(value);
}

// "12.4" -> 12, 4; "12" -> 12, 0.
bool ParseVersion(std::string_view text, int& major, int& minor) {
  const char* const end = text.data() + text.size();
  int first = 0, second = 0;
  auto [at, error] = std::from_chars(text.data(), end, first);
  if (error != std::errc() || first < 0) return false;
  if (at != end && *at == '.') std::from_chars(at + 1, end, second);
  major = first;
  minor = std::max(second, 0);
  return true;
}

// The IDs of os-release that libguestfs knows, by its own names for them.
std::string Distribution(const std::string& id) {
  static const std::map<std::string, std::string> kNames = {
      {"alpine", "alpinelinux"}, {"altlinux", "altlinux"}, {"arch", "archlinux"},    {"centos", "centos"},
      {"coreos", "coreos"},      {"debian", "debian"},     {"fedora", "fedora"},     {"frugalware", "frugalware"},
      {"kali", "kalilinux"},     {"mageia", "mageia"},     {"opensuse", "opensuse"}, {"pld", "pldlinux"},
      {"rhel", "rhel"},          {"rocky", "rocky"},       {"sles", "sles"},         {"sled", "sles"},
      {"ubuntu", "ubuntu"},      {"void", "voidlinux"}};
  if (id.starts_with("opensuse")) return "opensuse";
  const auto found = kNames.find(id);
  return found == kNames.end() ? "unknown" : found->second;
}

}  // namespace

std::vector<FstabLine> ParseFstab(std::string_view text) {
  std::vector<FstabLine> lines;
  ForEachLine(text, [&](std::string_view line) {
    const auto words = Words(line);
    if (words.size() < 2 || words[0].starts_with('#')) return;
    FstabLine entry{Unescape(words[0]), Unescape(words[1]), words.size() > 2 ? std::string(words[2]) : "",
                    words.size() > 3 ? Unescape(words[3]) : ""};
    const auto device = [&](std::string_view prefix) { return entry.device.starts_with(prefix); };
    const bool named =
        device("/dev/") || device("UUID=") || device("LABEL=") || device("PARTUUID=") || device("PARTLABEL=");
    const bool removable = device("/dev/fd") || device("/dev/sr") || device("/dev/cdrom") || device("/dev/floppy");
    if (!named || removable || !entry.path.starts_with('/') || entry.filesystem == "swap") return;
    if (entry.options.find("bind") != std::string::npos) return;
    while (entry.path.size() > 1 && entry.path.ends_with('/')) entry.path.pop_back();
    lines.push_back(std::move(entry));
  });
  return lines;
}

void DescribeRelease(std::string_view os_release, std::string_view debian_version, SystemDescription& system) {
  std::map<std::string, std::string, std::less<>> values;
  ForEachLine(os_release, [&](std::string_view line) {
    line = Trim(line);
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos || line.starts_with('#')) return;
    values[std::string(line.substr(0, equals))] = Unquote(line.substr(equals + 1));
  });
  system.distro = Distribution(values["ID"]);
  system.product = values["PRETTY_NAME"];
  ParseVersion(values["VERSION_ID"], system.major, system.minor);
  if (system.distro == "debian" && system.minor == 0) {
    int major = 0, minor = 0;
    if (ParseVersion(FirstLine(debian_version), major, minor) && major == system.major) system.minor = minor;
  }
}

std::vector<Package> ParseDpkgStatus(std::string_view text) {
  std::vector<Package> packages;
  Package package;
  bool installed = false;
  const auto finish = [&] {
    if (installed && !package.name.empty() && !package.version.empty()) packages.push_back(package);
    package = {};
    installed = false;
  };
  ForEachLine(text, [&](std::string_view line) {
    const auto field = [&](std::string_view name) {
      return line.starts_with(name) ? std::optional(Trim(line.substr(name.size()))) : std::nullopt;
    };
    if (line.empty()) {
      finish();
    } else if (const auto name = field("Package: ")) {
      package.name = *name;
    } else if (const auto status = field("Status: ")) {
      const auto words = Words(*status);
      installed = std::find(words.begin(), words.end(), "installed") != words.end();
    } else if (const auto version = field("Version: ")) {
      package.version = *version;
    } else if (const auto arch = field("Architecture: ")) {
      package.arch = *arch;
    }
  });
  finish();
  return packages;
}

std::vector<Package> ParseApkInstalled(std::string_view text) {
  std::vector<Package> packages;
  Package package;
  const auto finish = [&] {
    if (!package.name.empty() && !package.version.empty()) packages.push_back(package);
    package = {};
  };
  ForEachLine(text, [&](std::string_view line) {
    if (line.empty()) return finish();
    if (line.size() < 2 || line[1] != ':') return;
    const std::string_view value = Trim(line.substr(2));
    if (line[0] == 'P') package.name = value;
    if (line[0] == 'V') package.version = value;
    if (line[0] == 'A') package.arch = value;
  });
  finish();
  return packages;
}

std::optional<std::string> ElfArchitecture(std::string_view head) {
  if (head.size() < 20 || !head.starts_with("\x7f"
                                            "ELF"))
    return std::nullopt;
  const bool wide = head[4] == 2, little = head[5] == 1;
  const auto first = static_cast<uint8_t>(head[18]), second = static_cast<uint8_t>(head[19]);
  switch (little ? first | second << 8 : first << 8 | second) {
    case 3:
      return "i386";
    case 62:
      return "x86_64";
    case 40:
      return "arm";
    case 183:
      return "aarch64";
    case 20:
      return "ppc";
    case 21:
      return little ? "ppc64le" : "ppc64";
    case 22:
      return wide ? "s390x" : "s390";
    case 243:
      return wide ? "riscv64" : "riscv32";
    case 43:
      return "sparc64";
    case 50:
      return "ia64";
    default:
      return std::nullopt;
  }
}

std::string FirstLine(std::string_view text) {
  return std::string(Trim(text.substr(0, std::min(text.find('\n'), text.size()))));
}

}  // namespace mirage
