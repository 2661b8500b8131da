// MOUNT/.mirage: versions by id, and what differs between two. A range is written as everywhere, `debian/v1..debian/v2`,
// so its slashes are directories: `debian`, then `v1..debian`, which is a range already (up to the head), and in that `v2`.
#include "mirfs/version_views.h"

#include <algorithm>

#include "mirfs/provenance.h"
#include "store/revision.h"

namespace mirage {
namespace {

using Kind = Inode::Kind;
constexpr std::string_view kDiffName = "diff", kByIdName = "by-id";
constexpr uint64_t kFirstOffset = 2;  // "." ends at 1, ".." at 2

}  // namespace

std::shared_ptr<DirectoryInode> VersionsFs::MakeViews() const {
  auto inode = std::make_shared<DirectoryInode>();
  inode->kind = Kind::kViews;
  inode->number = inode->identity = Hash("views");
  inode->parent_number = root_->number;
  return inode;
}

std::shared_ptr<DirectoryInode> VersionsFs::MakeView(Kind kind, const std::string& text,
                                                     const DirectoryInode& parent) const {
  auto inode = std::make_shared<DirectoryInode>();
  inode->kind = kind;
  inode->number = inode->identity = Hash((kind == Kind::kById ? "by-id " : "range ") + text);
  inode->path = text;
  inode->parent_number = parent.number;
  return inode;
}

// The name as it was given is part of the place: of two prefixes of one id, each is a directory of its own.
Result<std::shared_ptr<const Inode>> VersionsFs::MakeById(const DirectoryInode& parent, std::string_view name) const {
  const auto snapshot = library_->snapshot();
  const auto version = ResolveVersion(*snapshot, "@" + std::string(name));
  if (!version || name.find('~') != name.npos) return Fail(ENOENT, "{}: not a version's id", name);
  ASSIGN_OR_RETURN(const std::string full_name, NameOfVersion(*snapshot, version->id, version->manifest));
  ASSIGN_OR_RETURN(auto inode, MakeVersion("by-id/" + std::string(name), full_name, version->id));
  inode->parent_number = parent.number;
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeRange(const DirectoryInode& parent, std::string_view name) const {
  const std::string text = parent.path.empty() ? std::string(name) : parent.path + "/" + std::string(name);
  const auto snapshot = library_->snapshot();
  const auto missing = [&] { return Fail(ENOENT, "{}: not a range of versions", text); };
  const auto sides = SplitRange(text);
  if (!sides) {
    if (!CheckBranchName(text)) return missing();
    ASSIGN_OR_RETURN(const auto branch, snapshot->Branch(text));
    if (!branch) return missing();
    return MakeView(Kind::kRange, text, parent);
  }
  const auto before = ResolveVersion(*snapshot, sides->first), after = ResolveVersion(*snapshot, sides->second);
  if (!before || !after) return missing();
  auto view = std::make_shared<DeltaView>();
  view->text = text;
  for (size_t part = 0; part < view->versions.size(); ++part) {
    const Version& shown = part == 2 ? *before : *after;
    const std::string place = "diff/" + text + "/" + std::string(DeltaView::kParts[part]);
    ASSIGN_OR_RETURN(const std::string full_name, NameOfVersion(*snapshot, shown.id, shown.manifest));
    ASSIGN_OR_RETURN(const auto root, MakeVersion(place, full_name, shown.id));
    view->versions[part] = root->version;
    view->roots[part] = root->entry;
  }
  auto inode = std::make_shared<DeltaInode>();
  inode->kind = Kind::kDelta;
  inode->number = inode->identity =
      Hash("delta " + text + "/" + std::string(before->id.view()) + std::string(after->id.view()));
  inode->path = text;
  inode->parent_number = parent.number;
  inode->view = std::move(view);
  return inode;
}

std::shared_ptr<const Inode> VersionsFs::MakeDeltaPart(const DeltaInode& delta, size_t part) const {
  auto inode = std::make_shared<DeltaInode>();
  inode->kind = Kind::kDeltaPart;
  inode->view = delta.view;
  inode->part = part;
  inode->version = delta.view->versions[part];
  inode->entry = delta.view->roots[part];
  inode->other = delta.view->roots[part == 2 ? 0 : 2].id;
  inode->number = inode->identity = Hash("", inode->version->key);
  inode->parent_number = delta.number;
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::MakeDeltaChild(const DeltaInode& directory, std::string_view name,
                                                                const DeltaEntry& delta) const {
  if (delta.whole) return MakeChild(directory, name, delta.entry);
  auto inode = std::make_shared<DeltaInode>();
  inode->kind = Kind::kDeltaPart;
  inode->view = directory.view;
  inode->part = directory.part;
  inode->version = directory.version;
  inode->entry = delta.entry;
  inode->other = delta.other;
  inode->path = directory.path.empty() ? std::string(name) : directory.path + "/" + std::string(name);
  inode->number = inode->identity = Hash(inode->path, inode->version->key);
  inode->parent_number = directory.number;
  return inode;
}

Result<std::shared_ptr<const Inode>> VersionsFs::ViewChild(const DirectoryInode& directory,
                                                           std::string_view name) const {
  if (directory.kind == Kind::kViews) {
    if (name == kDiffName) return MakeView(Kind::kRange, "", directory);
    if (name == kByIdName) return MakeView(Kind::kById, "", directory);
    return Fail(ENOENT, "{}: no such view", name);
  }
  if (directory.kind == Kind::kById) return MakeById(directory, name);
  if (directory.kind == Kind::kRange) return MakeRange(directory, name);
  const auto& delta = static_cast<const DeltaInode&>(directory);
  if (directory.kind == Kind::kDelta) {
    const auto part = std::find(DeltaView::kParts.begin(), DeltaView::kParts.end(), name);
    if (part == DeltaView::kParts.end()) return MakeRange(directory, name);
    return MakeDeltaPart(delta, static_cast<size_t>(part - DeltaView::kParts.begin()));
  }
  ASSIGN_OR_RETURN(const auto entry,
                   DeltaTree(reader_).Lookup(delta.kind_of_part(), delta.other, delta.entry.id, name));
  if (!entry) return Fail(ENOENT, "{}: no such name", name);
  return MakeDeltaChild(delta, name, *entry);
}

Status VersionsFs::ListView(NodeId node, const DirectoryInode& directory, uint64_t offset, bool plus,
                            const AddItem& add) {
  uint64_t position = kFirstOffset;
  // An offset counts the items before it; a listing in pieces finds its place by counting anew.
  const auto emit = [&](std::string_view name, Result<std::shared_ptr<const Inode>> child) -> Result<bool> {
    if (!child) return tl::make_unexpected(std::move(child).error());
    return Emit(node, directory, name, position, std::move(*child), plus, add);
  };
  if (directory.kind == Kind::kViews) {
    for (const std::string_view name : {kDiffName, kByIdName}) {
      if (position++ < offset) continue;
      ASSIGN_OR_RETURN(const bool more, emit(name, ViewChild(directory, name)));
      if (!more) break;
    }
    return {};
  }
  if (directory.kind == Kind::kById || directory.kind == Kind::kRange) return {};  // too many to list
  const auto& delta = static_cast<const DeltaInode&>(directory);
  if (directory.kind == Kind::kDelta) {
    for (size_t part = 0; part < DeltaView::kParts.size(); ++part) {
      if (position++ < offset) continue;
      ASSIGN_OR_RETURN(const bool more, emit(DeltaView::kParts[part], MakeDeltaPart(delta, part)));
      if (!more) break;
    }
    return {};
  }
  Status status;
  TRY(DeltaTree(reader_).Scan(delta.kind_of_part(), delta.other, delta.entry.id,
                              [&](std::string_view name, const DeltaEntry& entry) {
                                if (position++ < offset) return true;
                                auto more = emit(name, MakeDeltaChild(delta, name, entry));
                                if (!more) status = tl::make_unexpected(std::move(more).error());
                                return more && *more;
                              }));
  return status;
}

}  // namespace mirage
