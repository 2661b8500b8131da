#include "tools/overlay_view.h"

#include "mirfs/committer.h"
#include "mirfs/control.h"

namespace mirage {

Result<std::unique_ptr<Overlay>> LookAtOverlay(Library& library, const std::string& id) {
  ASSIGN_OR_RETURN(const OverlayInfo info, FindOverlay(library, id));
  if (!info.mounted) return Overlay::Open(library, info.id);
  ASSIGN_OR_RETURN(const std::string database, ControlView(library.path(), info.id));
  return Overlay::OpenView(library, info.id, database);
}

Result<int> PrintOverlayChanges(Session& session, const std::shared_ptr<Library>& library, const Overlay& overlay,
                                const Manifest* base, const std::vector<std::string>& paths,
                                ChangePrinter::Options options) {
  ASSIGN_OR_RETURN(const auto staged, StagedOverlay::Stage(*library, overlay));
  const TreeReader reader(library, staged->objects());
  ChangePrinter printer(session, reader, options);
  for (const std::string& path : paths) {
    TRY(DiffVersions(reader, base ? *base : staged->base(), staged->manifest(), path,
                     [&](const Change& change) { return printer.Print(change); }));
  }
  if (options.statistics) printer.PrintStatistics();
  if (const size_t count = staged->excluded().size()) {
    session.Say(fmt::format("excluded by mirage.yaml, not to be committed: {} path{}", count, count == 1 ? "" : "s"));
  }
  return printer.total() > 0 ? 1 : 0;
}

}  // namespace mirage
