#include "store/mark.h"

#include "store/references.h"

namespace mirage {

Marker::Marker(RecordScratch& scratch, const std::atomic<bool>* interrupted)
    : scratch_(scratch),
      interrupted_(interrupted),
      live_(scratch),
      nodes_(scratch, kIdKeyBytes, scratch.memory_bytes / 8),
      contents_(scratch, kIdKeyBytes, scratch.memory_bytes / 8),
      chunks_(scratch, kIdKeyBytes, scratch.memory_bytes / 8) {}

Status Marker::Emit(ObjectKind kind, const ObjectId& id) {
  // Contents and chunks wait until all trees were read: they name no tree, so each is looked at once.
  switch (kind) {
    case ObjectKind::kContent: return contents_.Add(IdKey(kind, id));
    case ObjectKind::kChunk: return chunks_.Add(IdKey(kind, id));
    default: return nodes_.Add(IdKey(kind, id));
  }
}

Status Marker::Expand(const Snapshot& snapshot, std::string_view key) {
  if (interrupted_ && *interrupted_) return Fail(EINTR, "interrupted");
  const ObjectKind kind = KindOfKey(key);
  const ObjectId id = IdOfKey(key);
  if (kind == ObjectKind::kXattrs || kind == ObjectKind::kInspection) return {};
  ASSIGN_OR_RETURN(auto encoding, snapshot.database().Get(kind, id));
  if (!encoding && kind == ObjectKind::kContent) return Emit(ObjectKind::kChunk, id);
  if (!encoding) {
    return Fail(ENOENT, "object {} of kind '{}', which is in use, is missing from the library; run fsck", id.Hex(),
                static_cast<char>(kind));
  }
  return VisitReferences(kind, id, std::move(*encoding), [&](ObjectKind child, const ObjectId& child_id) -> Status {
    // Of an ancestor the history is kept, not the contents.
    if (kind == ObjectKind::kManifest && child != ObjectKind::kManifest) return {};
    return Emit(child, child_id);
  });
}

Status Marker::ExpandAll(const Snapshot& snapshot, RecordSorter* from) {
  for (;;) {
    ASSIGN_OR_RETURN(const Run named, from->Finish());
    ASSIGN_OR_RETURN(const Run fresh, live_.Missing(named));
    if (fresh->count() == 0) return {};
    TRY(live_.Add(fresh));
    RecordRun::Cursor cursor(*fresh);
    for (;;) {
      ASSIGN_OR_RETURN(const bool more, cursor.Next());
      if (!more) break;
      TRY(Expand(snapshot, cursor.record()));
    }
  }
}

Status Marker::Add(const Snapshot& snapshot, const std::vector<ObjectId>& roots) {
  std::vector<ObjectId> fresh;
  for (const ObjectId& root : roots) {
    if (!roots_.contains(root)) fresh.push_back(root);
  }
  for (const ObjectId& root : fresh) {
    ASSIGN_OR_RETURN(auto encoding, snapshot.database().Get(ObjectKind::kManifest, root));
    if (!encoding) return Fail(ENOENT, "version {}, which is in use, is missing from the library; run fsck", root.Hex());
    TRY(Emit(ObjectKind::kManifest, root));
    TRY(VisitReferences(ObjectKind::kManifest, root, std::move(*encoding),
                        [&](ObjectKind child, const ObjectId& id) { return Emit(child, id); }));
  }
  TRY(ExpandAll(snapshot, &nodes_));
  TRY(ExpandAll(snapshot, &contents_));  // names inner nodes and chunks
  TRY(ExpandAll(snapshot, &nodes_));
  ASSIGN_OR_RETURN(const Run named, chunks_.Finish());
  ASSIGN_OR_RETURN(Run chunks, live_.Missing(named));
  TRY(live_.Add(std::move(chunks)));
  roots_.insert(fresh.begin(), fresh.end());
  return {};
}

}  // namespace mirage
