#include "store/diff.h"

#include <algorithm>
#include <set>

namespace mirage {
namespace {

// Canonical order: a directory before what is in it, and that before the next name: '/' below every other byte.
struct CanonicalLess {
  bool operator()(std::string_view a, std::string_view b) const {
    const auto [left, right] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
    if (right == b.end()) return false;
    if (left == a.end()) return true;
    const auto rank = [](char c) { return c == '/' ? 0 : static_cast<unsigned char>(c) + 1; };
    return rank(*left) < rank(*right);
  }
};
using PathSet = std::set<std::string, CanonicalLess>;

std::string Join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : fmt::format("{}/{}", directory, name);
}

// Paths of all members of the groups that are not the same in both. A group that differs has a member whose first path
// differs, or that the other side has not; so the differing pairs name the groups.
Status CollectChangedLinks(const MapReader& links, const ObjectId& a, const ObjectId& b, PathSet* changed) {
  if (a == b) return {};
  std::set<std::string, std::less<>> firsts_a, firsts_b;
  TRY(links.Difference(a, b, [&](std::string_view, auto left, auto right) -> Status {
    if (left) firsts_a.emplace(*left);
    if (right) firsts_b.emplace(*right);
    return {};
  }));
  for (const auto& [root, firsts] : {std::pair(&a, &firsts_a), std::pair(&b, &firsts_b)}) {
    TRY(links.Scan(*root, "", [&, wanted = firsts](std::string_view path, std::string_view first) {
      if (wanted->contains(first)) changed->emplace(path);
      return true;
    }));
  }
  return {};
}

std::optional<ChangeKind> Compare(const Entry& before, const Entry& after) {
  if (before.type != after.type) return ChangeKind::kType;
  if (before == after) return std::nullopt;
  if (before.is_directory()) {
    // Id and size tell of what is in it, which is reported by itself.
    Entry same = before;
    same.id = after.id;
    same.size = after.size;
    return same == after ? std::nullopt : std::optional(ChangeKind::kMetadata);
  }
  const bool content = before.id != after.id || before.size != after.size || before.target != after.target ||
                       before.rdev_major != after.rdev_major || before.rdev_minor != after.rdev_minor;
  return content ? ChangeKind::kContent : ChangeKind::kMetadata;
}

class Differ {
 public:
  Differ(const TreeReader& reader, const MapReader& trees, const PathSet& links,
         const std::function<Status(const Change&)>& visit)
      : reader_(reader), trees_(trees), links_(links), visit_(visit) {}

  // An explicit stack: the depth comes from the image.
  Status Run(const std::string& path, const std::optional<Entry>& a, const std::optional<Entry>& b) {
    TRY(VisitName(path, a, b));
    while (!levels_.empty()) {
      Level& level = levels_.back();
      if (level.next == level.pairs.size()) {
        levels_.pop_back();
        continue;
      }
      const Pair pair = std::move(level.pairs[level.next++]);
      TRY(VisitName(Join(level.path, pair.name), pair.a, pair.b));
    }
    return {};
  }

 private:
  struct Pair {
    std::string name;
    std::optional<Entry> a, b;
  };
  // A directory of both versions: the names in it that differ, or that have something changed below them.
  struct Level {
    std::string path;
    std::vector<Pair> pairs;
    size_t next = 0;
  };

  Status VisitName(const std::string& path, const std::optional<Entry>& a, const std::optional<Entry>& b) {
    if (a && b) {
      const bool linked = links_.contains(path);
      std::optional<ChangeKind> kind = Compare(*a, *b);
      if (!kind && linked) kind = ChangeKind::kMetadata;
      if (kind) TRY(visit_({*kind, path, a, b, linked}));
      if (a->is_directory() && b->is_directory()) return Descend(path, *a, *b);
    } else {
      TRY(visit_({a ? ChangeKind::kDeleted : ChangeKind::kAdded, path, a, b}));
    }
    if (a && a->is_directory()) TRY(VisitAll(path, *a, ChangeKind::kDeleted));
    if (b && b->is_directory()) TRY(VisitAll(path, *b, ChangeKind::kAdded));
    return {};
  }

  Status VisitAll(const std::string& path, const Entry& directory, ChangeKind kind) {
    return reader_.Walk(directory, [&](const std::string& below, const Entry& entry) -> Result<bool> {
      Change change{kind, Join(path, below), std::nullopt, std::nullopt};
      (kind == ChangeKind::kAdded ? change.after : change.before) = entry;
      TRY(visit_(change));
      return true;
    });
  }

  Status Descend(const std::string& path, const Entry& a, const Entry& b) {
    if (path.size() > kMaxPathBytes) return Fail(EIO, "tree {}: its path has {} bytes", a.id.Hex(), path.size());
    Level level{path, {}};
    TRY(trees_.Difference(a.id, b.id, [&](std::string_view name, auto left, auto right) -> Status {
      Pair pair{std::string(name), std::nullopt, std::nullopt};
      if (left) { ASSIGN_OR_RETURN(pair.a, DecodeEntry(*left)); }
      if (right) { ASSIGN_OR_RETURN(pair.b, DecodeEntry(*right)); }
      level.pairs.push_back(std::move(pair));
      return {};
    }));
    TRY(AddLinked(a, b, &level));
    if (!level.pairs.empty()) levels_.push_back(std::move(level));
    return {};
  }

  // Names that are equal in both trees, but with a changed hard-link group at or below them.
  Status AddLinked(const Entry& a, const Entry& b, Level* level) {
    const std::string prefix = level->path.empty() ? "" : level->path + '/';
    const size_t differing = level->pairs.size();
    std::string last;
    for (auto at = links_.lower_bound(prefix); at != links_.end() && at->starts_with(prefix); ++at) {
      std::string name = at->substr(prefix.size(), at->find('/', prefix.size()) - prefix.size());
      if (name == last) continue;
      last = name;
      const auto end = level->pairs.begin() + static_cast<ptrdiff_t>(differing);
      const auto before = [](const Pair& pair, const std::string& wanted) { return pair.name < wanted; };
      const auto known = std::lower_bound(level->pairs.begin(), end, name, before);
      if (known != end && known->name == name) continue;
      Pair pair{std::move(name), std::nullopt, std::nullopt};
      ASSIGN_OR_RETURN(pair.a, reader_.Lookup(a.id, pair.name));
      ASSIGN_OR_RETURN(pair.b, reader_.Lookup(b.id, pair.name));
      if (!pair.a || !pair.b) return Fail(EIO, "{}: a hard link to nothing", *at);
      level->pairs.push_back(std::move(pair));
    }
    std::sort(level->pairs.begin(), level->pairs.end(), [](const Pair& x, const Pair& y) { return x.name < y.name; });
    return {};
  }

  const TreeReader& reader_;
  const MapReader& trees_;
  const PathSet& links_;
  const std::function<Status(const Change&)>& visit_;
  std::vector<Level> levels_;
};

// The entry at `path`, or nothing where one version has no such path.
Result<std::optional<Entry>> FindOptional(const TreeReader& reader, const Entry& root, const std::string& path) {
  auto entry = reader.Find(root, path);
  if (entry) return std::move(*entry);
  if (entry.error().code == ENOENT || entry.error().code == ENOTDIR) return std::nullopt;
  return tl::make_unexpected(std::move(entry).error());
}

}  // namespace

Status DiffVersions(const TreeReader& reader, const Manifest& a, const Manifest& b, std::string_view under,
                    const std::function<Status(const Change&)>& visit) {
  std::string path;
  for (size_t at = 0; at < under.size();) {
    const size_t slash = std::min(under.find('/', at), under.size());
    const std::string_view name = under.substr(at, slash - at);
    at = slash + 1;
    if (!name.empty() && name != ".") path = Join(path, name);
  }
  ASSIGN_OR_RETURN(const std::optional<Entry> before, FindOptional(reader, a.root, path));
  ASSIGN_OR_RETURN(const std::optional<Entry> after, FindOptional(reader, b.root, path));
  if (!before && !after) return Fail(ENOENT, "/{}: in neither of the two versions", path);
  PathSet links;
  TRY(CollectChangedLinks(reader.links(), a.links, b.links, &links));
  return Differ(reader, reader.trees(), links, visit).Run(path, before, after);
}

}  // namespace mirage
