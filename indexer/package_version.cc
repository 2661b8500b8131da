#include "indexer/package_version.h"

#include <algorithm>
#include <array>

namespace mirage {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The digits at `at`, without leading zeros; moves behind them.
std::string_view TakeDigits(std::string_view text, size_t& at) {
  const size_t start = at;
  while (at < text.size() && IsDigit(text[at])) ++at;
  std::string_view digits = text.substr(start, at - start);
  while (!digits.empty() && digits.front() == '0') digits.remove_prefix(1);
  return digits;
}
std::strong_ordering CompareDigits(std::string_view a, std::string_view b) {
  return a.size() != b.size() ? a.size() <=> b.size() : a.compare(b) <=> 0;
}

// dpkg's order of a character that is no digit: ~ before the end, letters before all others.
int Order(std::string_view text, size_t at) {
  if (at >= text.size() || IsDigit(text[at])) return 0;
  const char c = text[at];
  if (c == '~') return -1;
  return IsLetter(c) ? c : static_cast<uint8_t>(c) + 256;
}

std::strong_ordering CompareDebianPart(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    while ((i < a.size() && !IsDigit(a[i])) || (j < b.size() && !IsDigit(b[j]))) {
      const int left = Order(a, i), right = Order(b, j);
      if (left != right) return left <=> right;
      ++i;
      ++j;
    }
    i = std::min(i, a.size());
    j = std::min(j, b.size());
    const std::string_view left = TakeDigits(a, i), right = TakeDigits(b, j);
    if (const auto order = CompareDigits(left, right); order != 0) return order;
  }
  return std::strong_ordering::equal;
}

struct Parts {
  std::string_view epoch, version, release;
};
// Of "EPOCH:"; 0 without one.
size_t EpochBytes(std::string_view text) {
  const size_t colon = text.find(':');
  return colon == std::string_view::npos ? 0 : colon + 1;
}
Parts Split(std::string_view text) {
  Parts parts;
  if (const size_t bytes = EpochBytes(text); bytes > 0) {
    size_t at = 0;
    parts.epoch = TakeDigits(text, at);
    text.remove_prefix(bytes);
  }
  if (const size_t dash = text.rfind('-'); dash != std::string_view::npos) {
    parts.release = text.substr(dash + 1);
    text = text.substr(0, dash);
  }
  parts.version = text;
  return parts;
}

// rpmvercmp of rpm 4.15 and later: ~ sorts before the end, ^ behind it and before all else; runs of digits and of
// letters take turns, and digits are newer than letters.
std::strong_ordering CompareRpmPart(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  const auto skip = [](std::string_view text, size_t& at) {
    while (at < text.size() && !IsDigit(text[at]) && !IsLetter(text[at]) && text[at] != '~' && text[at] != '^') ++at;
  };
  while (i < a.size() || j < b.size()) {
    skip(a, i);
    skip(b, j);
    const char left = i < a.size() ? a[i] : '\0', right = j < b.size() ? b[j] : '\0';
    if (left == '~' || right == '~') {
      if (left != '~') return std::strong_ordering::greater;
      if (right != '~') return std::strong_ordering::less;
      ++i;
      ++j;
      continue;
    }
    if (left == '^' || right == '^') {
      if (left == '\0') return std::strong_ordering::less;
      if (right == '\0') return std::strong_ordering::greater;
      if (left != '^') return std::strong_ordering::greater;
      if (right != '^') return std::strong_ordering::less;
      ++i;
      ++j;
      continue;
    }
    if (left == '\0' || right == '\0') break;
    if (IsDigit(left)) {
      if (!IsDigit(right)) return std::strong_ordering::greater;
      if (const auto order = CompareDigits(TakeDigits(a, i), TakeDigits(b, j)); order != 0) return order;
      continue;
    }
    if (!IsLetter(right)) return std::strong_ordering::less;
    const size_t first = i, second = j;
    while (i < a.size() && IsLetter(a[i])) ++i;
    while (j < b.size() && IsLetter(b[j])) ++j;
    const int order = a.substr(first, i - first).compare(b.substr(second, j - second));
    if (order != 0) return order <=> 0;
  }
  return (i < a.size()) <=> (j < b.size());
}

}  // namespace

std::strong_ordering CompareDebianVersions(std::string_view a, std::string_view b) {
  const Parts left = Split(a), right = Split(b);
  if (const auto order = CompareDigits(left.epoch, right.epoch); order != 0) return order;
  if (const auto order = CompareDebianPart(left.version, right.version); order != 0) return order;
  return CompareDebianPart(left.release, right.release);
}

std::strong_ordering CompareRpmVersions(std::string_view a, std::string_view b) {
  const Parts left = Split(a), right = Split(b);
  if (const auto order = CompareDigits(left.epoch, right.epoch); order != 0) return order;
  if (const auto order = CompareRpmPart(left.version, right.version); order != 0) return order;
  if (left.release.empty() || right.release.empty()) return std::strong_ordering::equal;
  return CompareRpmPart(left.release, right.release);
}

PackageFamily FamilyOf(std::string_view distro) {
  static constexpr std::array<std::string_view, 17> kRpm = {
      "altlinux",     "centos",          "fedora",      "mageia",     "mandriva",     "meego",
      "openmandriva", "opensuse",        "oraclelinux", "pldlinux",   "redhat-based", "rhel",
      "rocky",        "scientificlinux", "sles",        "suse-based", "openeuler"};
  return std::find(kRpm.begin(), kRpm.end(), distro) != kRpm.end() ? PackageFamily::kRpm : PackageFamily::kDebian;
}

PackageFamily FamilyOf(const SystemDescription& system) {
  if (system.distro != "unknown") return FamilyOf(system.distro);
  static constexpr std::array<std::string_view, 5> kMachines = {"noarch", "x86_64", "aarch64", "i686", "ppc64le"};
  const bool rpm = std::any_of(system.packages.begin(), system.packages.end(), [](const Package& package) {
    return std::find(kMachines.begin(), kMachines.end(), package.arch) != kMachines.end();
  });
  return rpm ? PackageFamily::kRpm : PackageFamily::kDebian;
}

bool PackageQuery::Matches(std::string_view package_version, PackageFamily family) const {
  if (operation == kAny) return true;
  if (EpochBytes(version) == 0) package_version.remove_prefix(EpochBytes(package_version));
  const auto order = family == PackageFamily::kRpm ? CompareRpmVersions(package_version, version)
                                                   : CompareDebianVersions(package_version, version);
  switch (operation) {
    case kLess:
      return order < 0;
    case kLessEqual:
      return order <= 0;
    case kEqual:
      return order == 0;
    case kGreaterEqual:
      return order >= 0;
    default:
      return order > 0;
  }
}

Result<PackageQuery> ParsePackageQuery(std::string_view text) {
  PackageQuery query;
  const size_t at = std::min(text.find_first_of("<=>"), text.size());
  const auto trim = [](std::string_view part) {
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    while (!part.empty() && part.back() == ' ') part.remove_suffix(1);
    return part;
  };
  query.name = trim(text.substr(0, at));
  size_t end = at;
  while (end < text.size() && (text[end] == '<' || text[end] == '=' || text[end] == '>')) ++end;
  const std::string_view sign = text.substr(at, end - at);
  query.version = trim(text.substr(end));
  static constexpr std::array<std::pair<std::string_view, PackageQuery::Operator>, 8> kSigns = {
      {{"<", PackageQuery::kLess},
       {"<<", PackageQuery::kLess},
       {"<=", PackageQuery::kLessEqual},
       {"=", PackageQuery::kEqual},
       {"==", PackageQuery::kEqual},
       {">=", PackageQuery::kGreaterEqual},
       {">", PackageQuery::kGreater},
       {">>", PackageQuery::kGreater}}};
  for (const auto& [word, operation] : kSigns) {
    if (word == sign) query.operation = operation;
  }
  const bool known = sign.empty() || query.operation != PackageQuery::kAny;
  if (query.name.empty() || query.name.find_first_of(" !,;:") != std::string::npos || !known ||
      sign.empty() != query.version.empty() || query.version.find(' ') != std::string::npos) {
    return Fail(EINVAL,
                "{}: not a package; write NAME, or NAME and a version with one of < <= = >= >: 'openssl<3.0.11'", text);
  }
  return query;
}

}  // namespace mirage
