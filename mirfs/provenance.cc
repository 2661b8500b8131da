#include "mirfs/provenance.h"

namespace mirage {
namespace {

bool SameContent(const Entry& a, const Entry& b) {
  return a.type == b.type && a.id == b.id && a.size == b.size && a.target == b.target &&
         a.rdev_major == b.rdev_major && a.rdev_minor == b.rdev_minor;
}

Result<std::string> FirstTagOf(const Snapshot& snapshot, const std::string& branch, const ObjectId& manifest) {
  ASSIGN_OR_RETURN(const auto tags, snapshot.Tags(branch));
  const std::pair<const std::string, Ref>* first = nullptr;
  for (const auto& tag : tags) {
    if (tag.second.manifest == manifest && (!first || tag.second.sequence < first->second.sequence)) first = &tag;
  }
  return first ? branch + "/" + first->first : "";
}

}  // namespace

Result<std::string> NameOfVersion(const Snapshot& snapshot, const ObjectId& id, const Manifest& manifest) {
  ASSIGN_OR_RETURN(std::string name, FirstTagOf(snapshot, manifest.branch, id));
  if (!name.empty()) return name;
  ASSIGN_OR_RETURN(const auto branches, snapshot.Branches());
  for (const auto& [branch, head] : branches) {
    ASSIGN_OR_RETURN(name, FirstTagOf(snapshot, branch, id));
    if (!name.empty()) return name;
  }
  return "@" + id.Hex();
}

Result<std::string> FirstVersionWith(const TreeReader& reader, const Snapshot& snapshot, const ObjectId& manifest_id,
                                     const std::string& path, const Entry& entry) {
  ObjectId id = manifest_id, first_id = manifest_id;
  ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(snapshot, id));
  Manifest first = manifest;
  while (!manifest.parents.empty()) {
    id = manifest.parents.front();
    auto parent = ReadManifest(snapshot, id);
    if (!parent && parent.error().code == ENOENT) break;  // collected: history begins here
    if (!parent) return tl::make_unexpected(std::move(parent).error());
    manifest = std::move(*parent);
    const auto then = reader.Find(manifest.root, path);
    if (!then && then.error().code != ENOENT && then.error().code != ENOTDIR) {
      return tl::make_unexpected(then.error());
    }
    if (then && SameContent(*then, entry)) {
      first_id = id;
      first = manifest;
    }
  }
  return NameOfVersion(snapshot, first_id, first);
}

}  // namespace mirage
