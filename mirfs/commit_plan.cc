#include "mirfs/commit_plan.h"

#include <fnmatch.h>

#include <algorithm>

#include "mirfs/upper_file.h"

namespace mirage {
namespace {

constexpr uint64_t kPutWholeBytes = 1 << 20;  // larger files go in pieces
constexpr uint64_t kPieceBytes = 1 << 20;
constexpr std::string_view kReservedXattrs = "user.mirage.";
constexpr uint64_t kRootInode = 1;

std::string Join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : fmt::format("{}/{}", directory, name);
}

// A name for an inode in `links_`: base paths never begin with '/'.
std::string LinkKey(uint64_t inode, const InodeRecord& record) {
  return record.lower ? record.origin : fmt::format("/{:016x}", inode);
}

const std::string kExcludedSuffix(1, '\0');  // in no path

// One file's bytes into the transaction.
Status PutFile(ContentWriter& writer, const UpperFile& file, uint64_t size, ContentWriter::Done done) {
  if (size <= kPutWholeBytes) {
    std::string bytes;
    TRY(file.Read(0, size, &bytes));
    return writer.Put(std::move(bytes), std::move(done));
  }
  TRY(writer.Begin(std::move(done)));
  std::string bytes;
  auto put = file.VisitRuns([&](uint64_t offset, uint64_t length, UpperFile::Source source) -> Status {
    if (source == UpperFile::Source::kHole) return writer.AppendZeros(length);
    while (length > 0) {
      const uint64_t piece = std::min(length, kPieceBytes);
      bytes.clear();
      TRY(file.Read(offset, piece, &bytes));
      TRY(writer.Append(bytes));
      offset += piece;
      length -= piece;
    }
    return {};
  });
  if (put) return writer.End();
  static_cast<void>(writer.AbortStream());
  return put;
}

}  // namespace

CommitPlan::CommitPlan(Library& library, const Overlay& overlay, Transaction& transaction)
    : library_(library), overlay_(overlay), transaction_(transaction), trees_(library.shared_from_this()) {}
CommitPlan::~CommitPlan() = default;

Status CommitPlan::Load(const Manifest& base) {
  std::map<std::string, std::vector<std::string>> groups;
  if (!base.links.IsZero()) {
    ASSIGN_OR_RETURN(groups, trees_.LinkGroups(base.links));
    for (const auto& [first, members] : groups) {
      for (const auto& member : members) base_links_[member] = first;
    }
  }
  const auto add = [&](std::string_view path) {
    Changes* at = &changes_;
    while (!path.empty()) {
      const size_t slash = std::min(path.find('/'), path.size());
      const std::string_view name = path.substr(0, slash);
      const auto found = at->below.find(name);
      at = found != at->below.end() ? &found->second : &at->below[std::string(name)];
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
  };
  return overlay_.db().VisitInodes([&](uint64_t inode, const InodeRecord& record) {
    if (record.lower && record.nlink > 0) {
      by_origin_[record.origin] = inode;
      if (const auto group = groups.find(record.origin); group != groups.end() && !record.is_directory()) {
        for (const auto& member : group->second) add(member);
      } else {
        add(record.origin);
      }
    }
    records_.emplace(inode, record);
    return true;
  });
}

const CommitPlan::Changes* CommitPlan::ChangesAt(std::string_view path) const {
  const Changes* at = &changes_;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const auto found = at->below.find(path.substr(0, slash));
    if (found == at->below.end()) return nullptr;
    at = &found->second;
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return at;
}

bool CommitPlan::IsExcluded(const std::string& path) const {
  const std::string absolute = "/" + path;
  return std::any_of(library_.policy().exclude.begin(), library_.policy().exclude.end(),
                     [&](const std::string& pattern) { return ::fnmatch(pattern.c_str(), absolute.c_str(), 0) == 0; });
}

Status CommitPlan::Count(const Entry& entry, int sign) {
  Totals totals{1, entry.type == FileType::kRegular ? static_cast<int64_t>(entry.size) : 0};
  if (entry.is_directory()) {
    auto counted = counted_.find(entry.id);
    if (counted == counted_.end()) {
      Totals below;
      TRY(trees_.Walk(entry, [&](const std::string& path, const Entry& found) -> Result<bool> {
        if (!path.empty()) {
          ++below.files;
          if (found.type == FileType::kRegular) below.bytes += static_cast<int64_t>(found.size);
        }
        return true;
      }));
      counted = counted_.emplace(entry.id, below).first;
    }
    totals.files += counted->second.files;
    totals.bytes += counted->second.bytes;
  }
  totals_.files += sign * totals.files;
  totals_.bytes += sign * totals.bytes;
  return {};
}

void CommitPlan::KeepLinks(const std::string& origin, const std::string& path,
                           const std::set<std::string, std::less<>>& handled) {
  const std::string prefix = origin.empty() ? "" : origin + "/";
  for (auto link = base_links_.lower_bound(prefix); link != base_links_.end(); ++link) {
    const std::string_view member = link->first;
    if (!member.starts_with(prefix)) break;
    const std::string_view rest = member.substr(prefix.size());
    if (handled.contains(rest.substr(0, rest.find('/')))) continue;
    // The group's file was changed under another name, and this name is excluded: with others like it it stays what it was.
    const std::string& group = link->second;
    links_[by_origin_.contains(group) ? group + kExcludedSuffix : group].push_back(Join(path, rest));
  }
}

Result<std::unique_ptr<CommitPlan::Directory>> CommitPlan::PlanDirectory(uint64_t inode, const InodeRecord* record,
                                                                         const Entry* lower, const std::string& origin,
                                                                         const Changes* changes,
                                                                         const std::string& path) {
  auto directory = std::make_unique<Directory>();
  if (record) {
    ASSIGN_OR_RETURN(directory->entry, EntryOf(inode, *record));
  } else {
    directory->entry = *lower;
    directory->entry.id = {};
    directory->entry.size = 0;
  }
  if (lower) {
    directory->base = lower->id;
    directory->base_subdirectories = lower->size;
  }
  // Names to look at: those the overlay has entries for, and those of the base that changed where they are.
  std::map<std::string, std::optional<Dirent>> names;
  if (record) {
    TRY(overlay_.db().VisitDirents(inode, [&](std::string_view name, const Dirent& dirent) {
      names.emplace(name, dirent);
      return true;
    }));
  }
  if (changes && lower) {
    for (const auto& [name, unused] : changes->below) names.emplace(name, std::nullopt);
  }
  std::set<std::string, std::less<>> handled;
  for (const auto& [name, dirent] : names) {
    const std::string child_path = Join(path, name);
    std::optional<Entry> before;
    if (lower) {
      ASSIGN_OR_RETURN(before, trees_.Lookup(lower->id, name));
    }
    if (!dirent && !before) continue;
    if (IsExcluded(child_path)) {
      excluded_.push_back(child_path);
      continue;
    }
    handled.insert(name);
    if (!dirent && before->is_directory()) {
      // Changed in place: only what is below it counts.
      const std::string child_origin = Join(origin, name);
      const auto known = by_origin_.find(child_origin);
      Item item{.name = name};
      ASSIGN_OR_RETURN(item.directory,
                       PlanDirectory(known == by_origin_.end() ? 0 : known->second,
                                     known == by_origin_.end() ? nullptr : &records_.at(known->second), &*before,
                                     child_origin, &changes->below.find(name)->second, child_path));
      directory->items.push_back(std::move(item));
      continue;
    }
    uint64_t child = 0;
    if (dirent) {
      if (dirent->whiteout) {
        if (before) {
          TRY(Count(*before, -1));
          directory->items.push_back({.name = name, .removed = true});
        }
        continue;
      }
      child = dirent->child;
    } else {
      const std::string child_origin = Join(origin, name);
      const auto group = base_links_.find(child_origin);
      const auto known = by_origin_.find(group == base_links_.end() ? child_origin : group->second);
      if (known == by_origin_.end()) return Fail(EIO, "overlay {}: /{} has no record", overlay_.info().id, child_path);
      child = known->second;
    }
    const auto child_record = records_.find(child);
    if (child_record == records_.end()) {
      return Fail(EIO, "overlay {}: /{}: inode {:#x} has no record", overlay_.info().id, child_path, child);
    }
    if (before) TRY(Count(*before, -1));
    ASSIGN_OR_RETURN(auto item, PlanItem(name, child, child_record->second, child_path));
    directory->items.push_back(std::move(item));
  }
  if (lower) KeepLinks(origin, path, handled);
  return directory;
}

Result<CommitPlan::Item> CommitPlan::PlanItem(const std::string& name, uint64_t inode, const InodeRecord& record,
                                              const std::string& path) {
  Item item{.name = name};
  if (record.is_directory()) {
    const Entry* lower = record.lower ? &*record.lower : nullptr;
    if (lower) {
      TRY(Count(*lower, 1));
    } else {
      ++totals_.files;
    }
    ASSIGN_OR_RETURN(item.directory, PlanDirectory(inode, &record, lower, record.origin,
                                                   lower ? ChangesAt(record.origin) : nullptr, path));
    return item;
  }
  item.inode = inode;
  if (!contents_.contains(inode)) TRY(PlanContent(inode, record));
  ++totals_.files;
  if (record.type == FileType::kRegular) totals_.bytes += static_cast<int64_t>(contents_[inode]->size);
  if (record.nlink > 1) links_[LinkKey(inode, record)].push_back(path);
  return item;
}

Status CommitPlan::PlanContent(uint64_t inode, const InodeRecord& record) {
  const auto content = std::make_shared<FileContent>();
  contents_[inode] = content;
  content->mtime = record.mtime;
  const auto done = [content](const ObjectId& id, uint64_t) { content->id = id; };
  if (record.type == FileType::kSymlink) {
    if (!record.lower && record.target.size() > kInlineSymlinkBytes) {
      return transaction_.contents().Put(record.target, done);
    }
    return {};
  }
  if (record.type != FileType::kRegular) return {};
  LowerContent lower;
  if (record.lower) lower = {&library_.contents(), record.lower->id, record.lower->size};
  UpperFile file(overlay_.db(), overlay_.data(), inode, lower, record.lower_valid, record.may_have_data);
  if (record.may_have_data) (void)file.HostFile();  // it is read next: one walk of its path, not two
  ASSIGN_OR_RETURN(const auto host, file.Stat());
  if (host) {
    content->mtime = host->st_mtim;
  } else if (record.lower && record.lower_valid == record.lower->size) {
    content->id = record.lower->id;
    content->size = record.lower->size;
    return {};
  }
  TRY(file.Load());
  ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  content->id = kEmptyContentId;
  content->size = size;
  return size == 0 ? Status() : PutFile(transaction_.contents(), file, size, done);
}

Result<ObjectId> CommitPlan::XattrsOf(const InodeRecord& record) {
  if (!record.own_xattrs) return record.lower ? record.lower->xattrs : ObjectId{};
  XattrSet xattrs = record.xattrs;
  std::erase_if(xattrs, [](const auto& attribute) { return attribute.first.starts_with(kReservedXattrs); });
  if (xattrs.empty()) return ObjectId{};
  ASSIGN_OR_RETURN(const auto encoded, EncodeXattrs(xattrs));
  return transaction_.WriteObject(ObjectKind::kXattrs, encoded);
}

Result<Entry> CommitPlan::EntryOf(uint64_t inode, const InodeRecord& record) {
  Entry entry;
  entry.type = record.type;
  entry.mode = record.mode;
  entry.uid = record.uid;
  entry.gid = record.gid;
  entry.rdev_major = record.rdev_major;
  entry.rdev_minor = record.rdev_minor;
  struct timespec mtime = record.mtime;
  ASSIGN_OR_RETURN(entry.xattrs, XattrsOf(record));
  if (record.type == FileType::kRegular) {
    const FileContent& content = *contents_.at(inode);
    entry.id = content.id;
    entry.size = content.size;
    mtime = content.mtime;
  } else if (record.type == FileType::kSymlink && record.lower) {
    entry.id = record.lower->id;
    entry.size = record.lower->size;
    entry.target = record.lower->target;
  } else if (record.type == FileType::kSymlink) {
    entry.size = record.target.size();
    if (record.target.size() <= kInlineSymlinkBytes) {
      entry.target = record.target;
    } else {
      entry.id = contents_.at(inode)->id;
    }
  }
  entry.mtime_sec = mtime.tv_sec;
  entry.mtime_nsec = static_cast<uint32_t>(mtime.tv_nsec);
  return entry;
}

Result<Entry> CommitPlan::BuildDirectory(const Directory& directory) {
  std::vector<TreeEdit> edits;
  edits.reserve(directory.items.size());
  for (const Item& item : directory.items) {
    TreeEdit edit{item.name, std::nullopt};
    if (item.directory) {
      ASSIGN_OR_RETURN(edit.entry, BuildDirectory(*item.directory));
    } else if (!item.removed) {
      ASSIGN_OR_RETURN(edit.entry, EntryOf(item.inode, records_.at(item.inode)));
    }
    edits.push_back(std::move(edit));
  }
  Entry entry = directory.entry;
  entry.id = directory.base;
  entry.size = directory.base_subdirectories;
  if (!edits.empty() || directory.base.IsZero()) {
    ASSIGN_OR_RETURN(const auto edited, EditTree(transaction_, library_.trees(), directory.base,
                                                 directory.base_subdirectories, edits));
    entry.id = edited.id;
    entry.size = edited.subdirectories;
  }
  return entry;
}

Result<Manifest> CommitPlan::Build(const Manifest& base) {
  TRY(Load(base));
  const auto root = records_.find(kRootInode);
  ASSIGN_OR_RETURN(const auto plan, PlanDirectory(kRootInode, root == records_.end() ? nullptr : &root->second,
                                                  &base.root, "", &changes_, ""));
  TRY(transaction_.contents().Flush());
  Manifest manifest = base;
  ASSIGN_OR_RETURN(manifest.root, BuildDirectory(*plan));
  std::vector<std::vector<std::string>> groups;
  for (auto& [key, paths] : links_) {
    if (paths.size() > 1) groups.push_back(std::move(paths));
  }
  ASSIGN_OR_RETURN(manifest.links, WriteLinks(transaction_, std::move(groups)));
  manifest.file_count += static_cast<uint64_t>(totals_.files);
  manifest.total_bytes += static_cast<uint64_t>(totals_.bytes);
  return manifest;
}

}  // namespace mirage
