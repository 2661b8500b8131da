#include "store/references.h"

#include "store/map_node.h"

namespace mirage {
namespace {

Status VisitEntry(const Entry& entry, const VisitReference& visit) {
  if (!entry.xattrs.IsZero()) TRY(visit(ObjectKind::kXattrs, entry.xattrs));
  if (entry.is_directory()) return visit(ObjectKind::kTree, entry.id);
  const bool has_content = entry.type == FileType::kRegular || (entry.type == FileType::kSymlink && entry.target.empty());
  if (has_content && entry.size > 0) return visit(ObjectKind::kContent, entry.id);
  return {};
}

Status VisitManifest(std::string_view encoding, const VisitReference& visit) {
  ASSIGN_OR_RETURN(const Manifest manifest, DecodeManifest(encoding));
  TRY(VisitEntry(manifest.root, visit));
  if (!manifest.links.IsZero()) TRY(visit(ObjectKind::kLinks, manifest.links));
  if (!manifest.inspection.IsZero()) TRY(visit(ObjectKind::kInspection, manifest.inspection));
  for (const Disk& disk : manifest.disks) {
    if (!disk.skeleton.IsZero()) TRY(visit(ObjectKind::kContent, disk.skeleton));
  }
  for (const ObjectId& parent : manifest.parents) TRY(visit(ObjectKind::kManifest, parent));
  return {};
}

Status VisitMap(ObjectKind kind, std::string encoding, const VisitReference& visit) {
  ASSIGN_OR_RETURN(const auto node, MapNode::Decode(kind, std::move(encoding)));
  for (size_t i = 0; i < node->size(); ++i) {
    if (node->level() > 0) {
      TRY(visit(kind, node->child(i)));
    } else if (kind == ObjectKind::kTree) {
      ASSIGN_OR_RETURN(const Entry entry, DecodeEntry(node->value(i)));
      TRY(VisitEntry(entry, visit));
    }
  }
  return {};
}

Status VisitList(std::string_view encoding, const VisitReference& visit) {
  ASSIGN_OR_RETURN(const ContentNode node, DecodeContentNode(encoding));
  for (const Segment& segment : node.segments) {
    if (segment.id.IsZero()) continue;  // a hole
    TRY(visit(node.level == 0 ? ObjectKind::kChunk : ObjectKind::kContentNode, segment.id));
  }
  return {};
}

}  // namespace

Status VisitReferences(ObjectKind kind, const ObjectId& id, std::string encoding, const VisitReference& visit) {
  const auto visited = [&]() -> Status {
    switch (kind) {
      case ObjectKind::kManifest: return VisitManifest(encoding, visit);
      case ObjectKind::kTree:
      case ObjectKind::kLinks: return VisitMap(kind, std::move(encoding), visit);
      case ObjectKind::kContent:
      case ObjectKind::kContentNode: return VisitList(encoding, visit);
      case ObjectKind::kChunk:
      case ObjectKind::kXattrs:
      case ObjectKind::kInspection: return {};
    }
    return {};
  }();
  if (!visited) return Annotate(visited.error(), fmt::format("object {} of kind '{}'", id.Hex(), static_cast<char>(kind)));
  return {};
}

}  // namespace mirage
