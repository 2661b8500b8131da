// Attributes of files in versions: the image's own, and those that are answered on request. The latter are in no list,
// so that tar and rsync do not carry them into a copy.
#include "mirfs/provenance.h"
#include "mirfs/versions_fs.h"

namespace mirage {
namespace {

using Kind = Inode::Kind;
constexpr std::string_view kOwnPrefix = "user.mirage.";

tl::unexpected<Error> NoSuchAttribute(std::string_view name) { return Fail(ENODATA, "{}: no such attribute", name); }

}  // namespace

Result<VersionsFs::Place> VersionsFs::PlaceOf(NodeId node, const std::shared_ptr<const Inode>& inode) const {
  if (inode->kind == Kind::kDirectory || inode->kind == Kind::kDeltaPart) {
    auto directory = std::static_pointer_cast<const DirectoryInode>(inode);
    return Place{directory, directory->path};
  }
  if (inode->kind != Kind::kLeaf) return Fail(ENODATA, "not part of a version");
  const auto parent = Find(inodes_.Parent(node));
  if (!parent || ((*parent)->kind != Kind::kDirectory && (*parent)->kind != Kind::kDeltaPart)) {
    return Fail(ENODATA, "inode {:x}: where it was found is forgotten", node);
  }
  Place place{std::static_pointer_cast<const DirectoryInode>(*parent), ""};
  // A leaf does not know its name: the table would grow by half.
  Status status;
  TRY(reader_.Scan(place.directory->entry.id, 0, [&](std::string_view name, const Entry& entry) {
    if (entry != inode->entry) return true;
    const auto child = MakeChild(*place.directory, name, entry);
    if (!child) status = tl::make_unexpected(child.error());
    if (!child || (*child)->SameObject(*inode)) {
      place.path = place.directory->path + (place.directory->path.empty() ? "" : "/") + std::string(name);
    }
    return child && place.path.empty();
  }));
  TRY(status);
  if (place.path.empty()) return Fail(ENODATA, "inode {:x}: where it was found is forgotten", node);
  return place;
}

Result<std::string> VersionsFs::OwnXattr(NodeId node, const std::shared_ptr<const Inode>& inode,
                                         std::string_view name) const {
  const std::string_view what = name.substr(kOwnPrefix.size());
  if (what == "sha256") {
    if (inode->kind != Kind::kLeaf || inode->entry.type != FileType::kRegular) return NoSuchAttribute(name);
    return inode->entry.id.Hex();
  }
  if (what != "version" && what != "introduced") return NoSuchAttribute(name);
  ASSIGN_OR_RETURN(const Place place, PlaceOf(node, inode));
  if (what == "version") return place.directory->version->name;
  return FirstVersionWith(reader_, *library_->snapshot(), place.directory->version->manifest, place.path, inode->entry);
}

Result<std::string> VersionsFs::GetXattr(NodeId node, std::string_view name) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  if (name.starts_with(kOwnPrefix)) return OwnXattr(node, inode, name);
  if (inode->entry.xattrs.IsZero()) return NoSuchAttribute(name);
  ASSIGN_OR_RETURN(auto xattrs, reader_.Xattrs(inode->entry));
  auto it = xattrs.find(std::string(name));
  if (it == xattrs.end()) return NoSuchAttribute(name);
  return std::move(it->second);
}

Result<std::vector<std::string>> VersionsFs::ListXattrs(NodeId node) {
  ASSIGN_OR_RETURN(const auto inode, Find(node));
  std::vector<std::string> names;
  if (inode->entry.xattrs.IsZero()) return names;
  ASSIGN_OR_RETURN(const auto xattrs, reader_.Xattrs(inode->entry));
  for (const auto& [name, value] : xattrs) names.push_back(name);
  return names;
}

std::string VersionsFs::Describe(NodeId node) {
  std::string where = "library " + library_->path();
  const auto inode = Find(node);
  if (inode) {
    if (const auto place = PlaceOf(node, *inode)) {
      where += fmt::format(", version {}, path /{}", place->directory->version->name, place->path);
    } else if ((*inode)->kind == Kind::kBranch) {
      where += fmt::format(", branch {}", static_cast<const DirectoryInode&>(**inode).path);
    } else if ((*inode)->kind == Kind::kLeaf) {
      where += fmt::format(", content {}", (*inode)->entry.id.Hex());
    }
  }
  return where;
}

}  // namespace mirage
