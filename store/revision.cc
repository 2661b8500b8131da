#include "store/revision.h"

#include <algorithm>
#include <charconv>

namespace mirage {
namespace {

constexpr size_t kLeastPrefix = 4;          // hex digits behind '@'
constexpr uint64_t kMostAncestors = 1'000'000;

bool IsHexDigit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

Result<ObjectId> ResolveId(const Snapshot& snapshot, std::string_view text, std::string_view hex) {
  const bool right_size = hex.size() >= kLeastPrefix && hex.size() <= 2 * ObjectId::kSize;
  if (!right_size || !std::all_of(hex.begin(), hex.end(), IsHexDigit)) {
    return Fail(EINVAL, "{}: behind \"@\" come {} to {} hexadecimal digits", text, kLeastPrefix, 2 * ObjectId::kSize);
  }
  std::string lower(hex);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  }
  ASSIGN_OR_RETURN(const auto ids, snapshot.database().IdsWithPrefix(ObjectKind::kManifest, lower, 2));
  if (ids.empty()) return Fail(ENOENT, "{}: no such version; `mirage log BRANCH` shows their ids", text);
  if (ids.size() > 1) return Fail(EINVAL, "{}: more than one version begins so; give more digits", text);
  return ids.front();
}

// "branch" or "branch/tag".
Result<ObjectId> ResolveName(const Snapshot& snapshot, std::string_view text, std::string_view name, Version* version) {
  const size_t slash = name.find('/');
  version->branch = name.substr(0, slash);
  if (auto good = CheckBranchName(version->branch); !good) return Annotate(std::move(good).error(), text);
  ASSIGN_OR_RETURN(const std::optional<Ref> head, snapshot.Branch(version->branch));
  if (!head) return Fail(ENOENT, "{}: no such branch; `mirage branch` lists them", version->branch);
  if (slash == std::string_view::npos) return head->manifest;
  version->tag = name.substr(slash + 1);
  if (version->tag == "latest") {  // the same word as under a mount
    ASSIGN_OR_RETURN(version->tag, snapshot.LatestTag(version->branch));
    return head->manifest;
  }
  if (auto good = CheckTagName(version->tag); !good) return Annotate(std::move(good).error(), text);
  ASSIGN_OR_RETURN(const std::optional<Ref> tag, snapshot.Tag(version->branch, version->tag));
  if (!tag) return Fail(ENOENT, "{0}/{1}: no such tag; `mirage tag {0}` lists them", version->branch, version->tag);
  return tag->manifest;
}

// "~", "~3", "~2~1" -> how many steps back.
Result<uint64_t> ParseAncestors(std::string_view text, std::string_view suffix) {
  uint64_t steps = 0;
  while (!suffix.empty()) {
    suffix.remove_prefix(1);  // '~'
    const std::string_view digits = suffix.substr(0, suffix.find('~'));
    suffix.remove_prefix(digits.size());
    uint64_t step = 1;
    if (!digits.empty()) {
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
      if (error != std::errc() || end != digits.data() + digits.size() || step > kMostAncestors) {
        return Fail(EINVAL, "{}: behind \"~\" comes a number", text);
      }
    }
    steps += step;
  }
  return steps;
}

Result<std::string> NormalisePath(std::string_view text, std::string_view path) {
  std::string normal;
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (name.empty() || name == ".") continue;
    if (name == "..") return Fail(EINVAL, "{}: \"..\" is not followed", text);
    normal += '/';
    normal += name;
  }
  return normal.empty() ? "/" : normal;
}

}  // namespace

Result<Version> ResolveVersion(const Snapshot& snapshot, std::string_view text) {
  if (text.find(':') != std::string_view::npos) {
    return Fail(EINVAL, "{}: a version is wanted here, without a path", text);
  }
  if (text.empty()) return Fail(EINVAL, "\"\": not a version; give BRANCH, BRANCH/TAG or @ID");
  const std::string_view base = text.substr(0, text.find('~'));
  Version version;
  ASSIGN_OR_RETURN(const uint64_t steps, ParseAncestors(text, text.substr(base.size())));
  if (base.starts_with('@')) {
    ASSIGN_OR_RETURN(version.id, ResolveId(snapshot, text, base.substr(1)));
  } else {
    ASSIGN_OR_RETURN(version.id, ResolveName(snapshot, text, base, &version));
  }
  ASSIGN_OR_RETURN(version.manifest, ReadManifest(snapshot, version.id));
  for (uint64_t step = 0; step < steps; ++step) {
    if (version.manifest.parents.empty()) return Fail(ENOENT, "{}: there are only {} ancestors", text, step);
    version.id = version.manifest.parents.front();
    ASSIGN_OR_RETURN(version.manifest, ReadManifest(snapshot, version.id));
    version.branch.clear();
    version.tag.clear();
  }
  return version;
}

Result<VersionPath> ResolveVersionPath(const Snapshot& snapshot, std::string_view text) {
  VersionPath resolved;
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    ASSIGN_OR_RETURN(resolved.path, NormalisePath(text, text.substr(colon + 1)));
  }
  ASSIGN_OR_RETURN(resolved.version, ResolveVersion(snapshot, text.substr(0, colon)));
  return resolved;
}

std::optional<std::pair<std::string, std::string>> SplitRange(std::string_view text) {
  // Names have no "..", but a path behind ':' may.
  const size_t dots = text.find("..");
  if (dots == std::string_view::npos || dots > text.find(':')) return std::nullopt;
  return std::pair(std::string(text.substr(0, dots)), std::string(text.substr(dots + 2)));
}

}  // namespace mirage
