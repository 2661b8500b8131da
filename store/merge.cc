#include "store/merge.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "store/map_node.h"
#include "store/tree_writer.h"

namespace mirage {
namespace {

constexpr size_t kCacheBytes = 16 << 20;
constexpr int kMaxDepth = 2048;  // PATH_MAX names no more; the recursion's stack holds it
constexpr std::string_view kAccessList = "system.posix_acl_access";

using MaybeEntry = std::optional<Entry>;

std::string Join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : fmt::format("{}/{}", directory, name);
}

// The side that changed; nullptr: both did, differently.
template <typename Value>
const Value* Pick(const Value* base, const Value& ours, const Value& theirs) {
  if (ours == theirs) return &ours;
  if (!base) return nullptr;
  if (ours == *base) return &theirs;
  return theirs == *base ? &ours : nullptr;
}

// What an entry holds, apart from its attributes.
auto Payload(const Entry& entry) {
  return std::tie(entry.id, entry.size, entry.target, entry.rdev_major, entry.rdev_minor);
}
auto Time(const Entry& entry) { return std::pair(entry.mtime_sec, entry.mtime_nsec); }

class Merger {
 public:
  Merger(const ObjectReader& objects, ObjectWriter& writer, MergeFavor favor)
      : objects_(objects), writer_(writer), favor_(favor), trees_(objects, ObjectKind::kTree, kCacheBytes),
        links_(objects, ObjectKind::kLinks, kCacheBytes) {}

  Result<MergedVersion> Run(const Manifest& base, const Manifest& ours, const Manifest& theirs) {
    ASSIGN_OR_RETURN(const auto root, MergeName("", base.root, ours.root, theirs.root, 0));
    if (!root || !root->is_directory()) return Fail(EIO, "merge: a version whose root is no directory");
    MergedVersion merged{ours, {}};
    merged.manifest.root = *root;
    ASSIGN_OR_RETURN(merged.manifest.links, MergeLinks(*root, base.links, ours.links, theirs.links));
    merged.manifest.file_count += static_cast<uint64_t>(files_);
    merged.manifest.total_bytes += static_cast<uint64_t>(bytes_);
    merged.conflicts = std::move(conflicts_);
    return merged;
  }

 private:
  // A name on up to three sides; null: it is not there.
  struct Sides {
    MaybeEntry base, ours, theirs;
  };

  MaybeEntry Conflict(MergeConflict::Kind kind, const std::string& path, const Sides& sides) {
    conflicts_.push_back({kind, path, sides.base, sides.ours, sides.theirs});
    return favor_ == MergeFavor::kOurs ? sides.ours : sides.theirs;
  }

  // What becomes of a name, with the totals brought from ours to it.
  Result<MaybeEntry> MergeName(const std::string& path, const MaybeEntry& base, const MaybeEntry& ours,
                               const MaybeEntry& theirs, int depth) {
    if (depth > kMaxDepth) return Fail(ENAMETOOLONG, "merge: directories nested more than {} deep", kMaxDepth);
    if (ours && theirs && ours->is_directory() && theirs->is_directory() && *ours != *theirs && ours != base &&
        theirs != base) {
      const bool had_directory = base && base->is_directory();
      ASSIGN_OR_RETURN(const Entry merged,
                       MergeDirectories(path, had_directory ? &*base : nullptr, *ours, *theirs, depth));
      return MaybeEntry(merged);
    }
    const auto picked = [&]() -> MaybeEntry {
      if (const MaybeEntry* one = Pick(&base, ours, theirs)) return *one;
      const Sides sides{base, ours, theirs};
      if (!ours || !theirs) return Conflict(MergeConflict::kDeleted, path, sides);
      const bool same_type = ours->type == theirs->type;
      if (!same_type) return Conflict(base ? MergeConflict::kType : MergeConflict::kAdded, path, sides);
      return MergeEntries(path, sides);
    }();
    TRY(TakePending());
    TRY(Count(ours, picked, depth));
    return picked;
  }

  // Two that are not directories, of one type.
  MaybeEntry MergeEntries(const std::string& path, const Sides& sides) {
    const Entry &ours = *sides.ours, &theirs = *sides.theirs;
    const Entry* base = sides.base && sides.base->type == ours.type ? &*sides.base : nullptr;
    const bool ours_holds = !base || Payload(ours) != Payload(*base);
    const bool theirs_holds = !base || Payload(theirs) != Payload(*base);
    if (ours_holds && theirs_holds && Payload(ours) != Payload(theirs)) {
      return Conflict(sides.base ? MergeConflict::kContent : MergeConflict::kAdded, path, sides);
    }
    Entry merged = ours_holds ? ours : theirs;
    if (!MergeAttributes(base, ours, theirs, &merged)) {
      return Conflict(sides.base ? MergeConflict::kMetadata : MergeConflict::kAdded, path, sides);
    }
    // A time that only one side changed is that side's; else it goes with the content, else the later one holds.
    const Entry* time = nullptr;
    if (base && Time(ours) == Time(*base)) {
      time = &theirs;
    } else if (base && Time(theirs) == Time(*base)) {
      time = &ours;
    } else if (ours_holds != theirs_holds) {
      time = ours_holds ? &ours : &theirs;
    } else {
      time = Time(ours) < Time(theirs) ? &theirs : &ours;
    }
    merged.mtime_sec = time->mtime_sec;
    merged.mtime_nsec = time->mtime_nsec;
    return merged;
  }

  // Mode, owner and extended attributes. False: a conflict. An I/O error waits in pending_.
  bool MergeAttributes(const Entry* base, const Entry& ours, const Entry& theirs, Entry* merged) {
    const auto* uid = Pick(base ? &base->uid : nullptr, ours.uid, theirs.uid);
    const auto* gid = Pick(base ? &base->gid : nullptr, ours.gid, theirs.gid);
    if (!uid || !gid) return false;
    // A mode and its access list are two views of one thing.
    XattrSet of_base, of_ours, of_theirs;
    const auto read = [&](const Entry& entry, XattrSet* set) {
      auto found = ReadXattrs(objects_, entry.xattrs);
      if (found) {
        *set = std::move(*found);
      } else if (pending_) {
        pending_ = tl::make_unexpected(std::move(found).error());
      }
    };
    if (base) read(*base, &of_base);
    read(ours, &of_ours);
    read(theirs, &of_theirs);
    using Value = std::optional<std::string>;
    const auto value = [](const XattrSet& set, const std::string& name) {
      const auto found = set.find(name);
      return found == set.end() ? Value() : Value(found->second);
    };
    const std::string access(kAccessList);
    const auto base_mode = std::pair(base ? base->mode : uint16_t{0}, value(of_base, access));
    const auto ours_mode = std::pair(ours.mode, value(of_ours, access));
    const auto theirs_mode = std::pair(theirs.mode, value(of_theirs, access));
    const auto* mode = Pick(base ? &base_mode : nullptr, ours_mode, theirs_mode);
    if (!mode) return false;
    std::set<std::string> names;
    for (const XattrSet* set : {&of_ours, &of_theirs}) {
      for (const auto& [name, unused] : *set) names.insert(name);
    }
    XattrSet xattrs;
    for (const std::string& name : names) {
      const Value before = value(of_base, name), one = value(of_ours, name), other = value(of_theirs, name);
      const Value* picked = name == kAccessList ? &mode->second : Pick(base ? &before : nullptr, one, other);
      if (!picked) return false;
      if (*picked) xattrs[name] = **picked;
    }
    merged->uid = *uid;
    merged->gid = *gid;
    merged->mode = mode->first;
    merged->xattrs = {};
    if (xattrs.empty() || !pending_) return true;
    auto written = [&]() -> Result<ObjectId> {
      ASSIGN_OR_RETURN(const std::string encoded, EncodeXattrs(xattrs));
      return writer_.WriteObject(ObjectKind::kXattrs, encoded);
    }();
    if (written) {
      merged->xattrs = *written;
    } else {
      pending_ = tl::make_unexpected(std::move(written).error());
    }
    return true;
  }

  Status TakePending() { return std::exchange(pending_, {}); }

  Result<Entry> MergeDirectories(const std::string& path, const Entry* base, const Entry& ours, const Entry& theirs,
                                 int depth) {
    Entry merged = ours;
    if (!MergeAttributes(base, ours, theirs, &merged)) {
      const MaybeEntry before = base ? MaybeEntry(*base) : std::nullopt;
      const auto kind = base ? MergeConflict::kMetadata : MergeConflict::kAdded;
      merged = *Conflict(kind, path, {before, ours, theirs});
    }
    TRY(TakePending());
    const Entry& later = Time(ours) < Time(theirs) ? theirs : ours;
    merged.mtime_sec = later.mtime_sec;
    merged.mtime_nsec = later.mtime_nsec;
    merged.id = ours.id;
    merged.size = ours.size;

    std::map<std::string, Sides> names;
    const ObjectId before = base ? base->id : ObjectId{};
    const auto collect = [&](const ObjectId& tree, MaybeEntry Sides::*side) -> Status {
      return trees_.Difference(before, tree, [&](std::string_view name, auto left, auto right) -> Status {
        MaybeEntry old;
        if (left) { ASSIGN_OR_RETURN(old, DecodeEntry(*left)); }
        Sides& sides = names.try_emplace(std::string(name), Sides{old, old, old}).first->second;
        sides.*side = std::nullopt;
        if (right) { ASSIGN_OR_RETURN(sides.*side, DecodeEntry(*right)); }
        return {};
      });
    };
    TRY(collect(ours.id, &Sides::ours));
    TRY(collect(theirs.id, &Sides::theirs));
    std::vector<TreeEdit> edits;
    for (const auto& [name, sides] : names) {
      ASSIGN_OR_RETURN(auto entry, MergeName(Join(path, name), sides.base, sides.ours, sides.theirs, depth + 1));
      if (entry != sides.ours) edits.push_back({name, std::move(entry)});
    }
    if (edits.empty()) return merged;
    ASSIGN_OR_RETURN(const auto edited, EditTree(writer_, trees_, ours.id, ours.size, edits));
    merged.id = edited.id;
    merged.size = edited.subdirectories;
    return merged;
  }

  // Adds to the totals what `to` has more than `from`, each with what is below it.
  Status Count(const MaybeEntry& from, const MaybeEntry& to, int depth) {
    if (from == to) return {};
    if (depth > kMaxDepth) return Fail(ENAMETOOLONG, "merge: directories nested more than {} deep", kMaxDepth);
    const auto bytes = [](const MaybeEntry& entry) {
      return entry && entry->type == FileType::kRegular ? static_cast<int64_t>(entry->size) : 0;
    };
    files_ += static_cast<int64_t>(to.has_value()) - static_cast<int64_t>(from.has_value());
    bytes_ += bytes(to) - bytes(from);
    const auto tree = [](const MaybeEntry& entry) { return entry && entry->is_directory() ? entry->id : ObjectId{}; };
    std::vector<std::pair<MaybeEntry, MaybeEntry>> below;
    TRY(trees_.Difference(tree(from), tree(to), [&](std::string_view, auto left, auto right) -> Status {
      auto& [one, other] = below.emplace_back();
      if (left) { ASSIGN_OR_RETURN(one, DecodeEntry(*left)); }
      if (right) { ASSIGN_OR_RETURN(other, DecodeEntry(*right)); }
      return {};
    }));
    for (const auto& [one, other] : below) TRY(Count(one, other, depth + 1));
    return {};
  }

  Result<MaybeEntry> Find(const Entry& root, std::string_view path) const {
    MaybeEntry entry = root;
    while (!path.empty()) {
      if (!entry->is_directory()) return MaybeEntry();
      const size_t slash = std::min(path.find('/'), path.size());
      ASSIGN_OR_RETURN(const auto value, trees_.Find(entry->id, path.substr(0, slash)));
      if (!value) return MaybeEntry();
      ASSIGN_OR_RETURN(entry, DecodeEntry(*value));
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return entry;
  }

  // path -> the first path of its group, which names the group within one version.
  using Groups = std::map<std::string, std::string, std::less<>>;
  Result<Groups> ReadGroups(const ObjectId& links) const {
    Groups groups;
    TRY(links_.Scan(links, "", [&](std::string_view path, std::string_view first) {
      groups.emplace(path, first);
      return true;
    }));
    return groups;
  }

  // Two paths are linked in the merged version if one side linked them, or if neither unlinked them; and what follows from
  // that. Within a group of one side, members of different base groups were linked by it; if there are two such, they
  // connect all of its members. What was linked in the base and still is on both sides is one group on each.
  Result<ObjectId> MergeLinks(const Entry& root, const ObjectId& base, const ObjectId& ours, const ObjectId& theirs) {
    if (base == ours && base == theirs) return ours;  // members changed alike on each side, so they merged alike
    ASSIGN_OR_RETURN(const Groups of_base, ReadGroups(base));
    ASSIGN_OR_RETURN(const Groups of_ours, ReadGroups(ours));
    ASSIGN_OR_RETURN(const Groups of_theirs, ReadGroups(theirs));
    std::vector<std::string> paths;
    for (const Groups* groups : {&of_ours, &of_theirs}) {
      for (const auto& [path, unused] : *groups) paths.push_back(path);
    }
    std::sort(paths.begin(), paths.end());
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    std::vector<Entry> entries;
    size_t kept = 0;
    for (size_t i = 0; i < paths.size(); ++i) {
      ASSIGN_OR_RETURN(auto entry, Find(root, paths[i]));
      if (!entry || entry->is_directory()) continue;
      entries.push_back(std::move(*entry));
      if (kept != i) paths[kept] = std::move(paths[i]);
      ++kept;
    }
    paths.resize(kept);

    std::vector<size_t> leader(kept);  // union-find
    std::iota(leader.begin(), leader.end(), size_t{0});
    const auto lead = [&](size_t i) {
      while (leader[i] != i) i = leader[i] = leader[leader[i]];
      return i;
    };
    const auto join = [&](const std::vector<size_t>& members) {
      for (const size_t member : members) leader[lead(member)] = lead(members.front());
    };
    const auto group_in = [](const Groups& groups, const std::string& path) -> const std::string* {
      const auto found = groups.find(path);
      return found == groups.end() ? nullptr : &found->second;
    };
    for (const Groups* side : {&of_ours, &of_theirs}) {
      std::map<std::string_view, std::vector<size_t>> members;
      for (size_t i = 0; i < kept; ++i) {
        if (const auto* group = group_in(*side, paths[i])) members[*group].push_back(i);
      }
      for (const auto& [group, indices] : members) {
        const std::string* first = group_in(of_base, paths[indices.front()]);
        const bool one_in_base = first && std::all_of(indices.begin(), indices.end(), [&](size_t i) {
          const std::string* other = group_in(of_base, paths[i]);
          return other && *other == *first;
        });
        if (!one_in_base) join(indices);
      }
    }
    std::map<std::pair<std::string_view, std::string_view>, std::vector<size_t>> in_both;
    for (size_t i = 0; i < kept; ++i) {
      const auto *one = group_in(of_ours, paths[i]), *other = group_in(of_theirs, paths[i]);
      if (one && other) in_both[{*one, *other}].push_back(i);
    }
    for (const auto& [groups, indices] : in_both) join(indices);

    // Names of one inode are equal in all; where they are not, each kind stays a group of its own.
    std::map<size_t, std::vector<size_t>> merged;
    for (size_t i = 0; i < kept; ++i) merged[lead(i)].push_back(i);
    std::vector<std::vector<std::string>> groups;
    for (auto& [unused, indices] : merged) {
      std::map<std::string, std::vector<std::string>> alike;
      for (const size_t i : indices) alike[EncodeEntry(entries[i])].push_back(paths[i]);
      if (alike.size() > 1) {
        const std::string& path = paths[indices.front()];
        const bool told = std::any_of(conflicts_.begin(), conflicts_.end(), [&](const MergeConflict& conflict) {
          return std::any_of(indices.begin(), indices.end(), [&](size_t i) { return paths[i] == conflict.path; });
        });
        if (!told) conflicts_.push_back({MergeConflict::kLinks, path, {}, entries[indices.front()], {}});
      }
      for (auto& [encoding, members] : alike) {
        if (members.size() > 1) groups.push_back(std::move(members));
      }
    }
    return WriteLinks(writer_, std::move(groups));
  }

  const ObjectReader& objects_;
  ObjectWriter& writer_;
  const MergeFavor favor_;
  const MapReader trees_, links_;
  std::vector<MergeConflict> conflicts_;
  Status pending_;
  int64_t files_ = 0, bytes_ = 0;
};

}  // namespace

std::string_view DescribeConflict(MergeConflict::Kind kind) {
  switch (kind) {
    case MergeConflict::kContent: return "both changed its content";
    case MergeConflict::kMetadata: return "both changed its owner, mode or attributes";
    case MergeConflict::kType: return "one made it another type, both changed it";
    case MergeConflict::kAdded: return "both made it, differently";
    case MergeConflict::kDeleted: return "one deleted it, the other changed it";
    case MergeConflict::kLinks: return "a hard link to what the other side changed";
  }
  return "both changed it";
}

Result<MergedVersion> MergeVersions(const ObjectReader& objects, ObjectWriter& writer, const Manifest& base,
                                    const Manifest& ours, const Manifest& theirs, MergeFavor favor) {
  return Merger(objects, writer, favor).Run(base, ours, theirs);
}

}  // namespace mirage
