#include "store/diff.h"

#include <algorithm>

#include "mirfs/control.h"
#include "store/revision.h"
#include "tools/change_printer.h"
#include "tools/completeness.h"
#include "tools/overlay_view.h"
#include "tools/packages_report.h"
#include "tools/verbs.h"
#include "tools/version_path.h"

namespace mirage {
namespace {

struct Arguments {
  std::vector<std::string> sides;
  ChangePrinter::Options print;
  bool packages = false;
};

// ENOENT unless one of the two has the path: a path that is nowhere must not pass for equal.
Status CheckPathIsSomewhere(const TreeReader& reader, const Manifest& a, const Manifest& b, const std::string& path) {
  for (const Manifest* manifest : {&a, &b}) {
    const auto entry = reader.Find(manifest->root, path);
    if (entry) return {};
    if (entry.error().code != ENOENT && entry.error().code != ENOTDIR) return tl::make_unexpected(entry.error());
  }
  return Fail(ENOENT, "/{}: no such path in either version", path);
}

// Two different paths: directories as if they were roots, anything else as one path.
Status DiffPlaces(const TreeReader& reader, const VersionPath& a, const VersionPath& b, ChangePrinter& printer) {
  ASSIGN_OR_RETURN(const Located from, LocatePath(reader, a.version.manifest, a.path.value_or("/"), false));
  ASSIGN_OR_RETURN(const Located to, LocatePath(reader, b.version.manifest, b.path.value_or("/"), false));
  if (from.entry.is_directory() && to.entry.is_directory()) {
    Manifest left = a.version.manifest, right = b.version.manifest;
    left.root = from.entry;
    right.root = to.entry;
    left.links = right.links = ObjectId();  // groups are of whole versions
    return DiffVersions(reader, left, right, "", [&](const Change& change) { return printer.Print(change); });
  }
  if (from.entry == to.entry) return {};
  Change change;
  change.path = to.path.substr(1);
  change.before = from.entry;
  change.after = to.entry;
  const bool same_data = from.entry.id == to.entry.id && from.entry.target == to.entry.target &&
                         from.entry.rdev_major == to.entry.rdev_major && from.entry.rdev_minor == to.entry.rdev_minor;
  change.kind = from.entry.type != to.entry.type ? ChangeKind::kType
                : same_data                      ? ChangeKind::kMetadata
                                                 : ChangeKind::kContent;
  return printer.Print(change);
}

// What is behind "--", each path once, and none that lies below another; without any, `all`.
Result<std::vector<std::string>> PathsToCompare(const Session& session, const std::string& all) {
  std::vector<std::string> paths;
  for (const std::string& path : session.paths) {
    ASSIGN_OR_RETURN(paths.emplace_back(), TreePath(path));
  }
  if (paths.empty()) paths.push_back(all);
  std::sort(paths.begin(), paths.end());
  const std::vector<std::string> given = paths;
  std::erase_if(paths, [&](const std::string& path) {
    return std::any_of(given.begin(), given.end(), [&](const std::string& other) {
      return other.size() < path.size() && (other.empty() || path.starts_with(other + "/"));
    });
  });
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

// A version against what an edit mount would commit now.
Result<int> DiffMount(Session& session, const Arguments& arguments) {
  if (arguments.packages) return UsageError("--packages: not of an edit mount; commit it first");
  if (arguments.print.patch) return UsageError("-p: not of an edit mount; commit it, or use diff(1) on the mount");
  ASSIGN_OR_RETURN(const auto mount, FindMount(arguments.sides[1]));
  if (!mount || mount->overlay_id.empty()) {
    return Fail(EINVAL, "{}: no edit mount there; give two versions, or a version and an edit mount", arguments.sides[1]);
  }
  session.library_path = mount->library;
  ASSIGN_OR_RETURN(const auto library, session.Open());
  ASSIGN_OR_RETURN(const VersionPath version, ResolveVersionPath(*library->snapshot(), arguments.sides[0]));
  WarnIfIncomplete(arguments.sides[0], version.version.manifest);
  if (version.path) return UsageError("V:PATH does not go with a mount point; give V and -- PATH");
  ASSIGN_OR_RETURN(const auto overlay, LookAtOverlay(*library, mount->overlay_id));
  ASSIGN_OR_RETURN(const auto paths, PathsToCompare(session, ""));
  return PrintOverlayChanges(session, library, *overlay, &version.version.manifest, paths, arguments.print);
}

Result<int> RunDiff(Session& session, const Arguments& arguments) {
  std::vector<std::string> sides = arguments.sides;
  if (sides.size() == 1) {
    const auto range = SplitRange(sides[0]);
    if (!range) return UsageError(fmt::format("{}: one version; give two, or A..B", sides[0]));
    sides = {range->first, range->second};
  }
  // No name of a version begins so.
  const bool place = arguments.sides.size() == 2 && (sides[1].starts_with('/') || sides[1].starts_with('.'));
  if (place) return DiffMount(session, arguments);
  ASSIGN_OR_RETURN(const auto library, session.Open());
  const auto snapshot = library->snapshot();
  const TreeReader reader(library);
  ASSIGN_OR_RETURN(const VersionPath a, ResolveVersionPath(*snapshot, sides[0]));
  ASSIGN_OR_RETURN(const VersionPath b, ResolveVersionPath(*snapshot, sides[1]));
  WarnIfIncomplete(sides[0], a.version.manifest);
  WarnIfIncomplete(sides[1], b.version.manifest);
  TRY(CheckContents(*snapshot, a.version.id));
  TRY(CheckContents(*snapshot, b.version.id));
  if (arguments.packages) {
    if (a.path || b.path || !session.paths.empty()) return UsageError("--packages compares whole versions, not paths");
    ASSIGN_OR_RETURN(const auto before, ReadPackages(*snapshot, a.version, sides[0]));
    ASSIGN_OR_RETURN(const auto after, ReadPackages(*snapshot, b.version, sides[1]));
    return PrintPackageDifferences(session, before, after) > 0 ? 1 : 0;
  }
  ChangePrinter printer(session, reader, arguments.print);
  ASSIGN_OR_RETURN(const std::string path_a, TreePath(a.path.value_or("")));
  ASSIGN_OR_RETURN(const std::string path_b, TreePath(b.path.value_or("")));
  if ((a.path || b.path) && !session.paths.empty()) return UsageError("V:PATH and -- PATH do not go together");
  if (path_a != path_b) {
    TRY(DiffPlaces(reader, a, b, printer));
  } else {
    ASSIGN_OR_RETURN(const auto paths, PathsToCompare(session, path_a));
    for (const std::string& path : paths)
      TRY(CheckPathIsSomewhere(reader, a.version.manifest, b.version.manifest, path));
    const auto print = [&](const Change& change) { return printer.Print(change); };
    for (const std::string& path : paths) {
      TRY(DiffVersions(reader, a.version.manifest, b.version.manifest, path, print));
    }
  }
  if (arguments.print.statistics) printer.PrintStatistics();
  return printer.total() > 0 ? 1 : 0;
}

}  // namespace

Action DeclareDiff(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positionals("A B", arguments->sides, "two versions, one range A..B, two V:PATH, or a version and an edit mount", 1, 2);
  options.Flag("--stat", arguments->print.statistics, "sizes before and after, and a sum at the end");
  options.Flag("-p,--patch", arguments->print.patch, "what changed: attributes, and a text patch that patch -p1 takes");
  options.Flag("--packages", arguments->packages, "the installed packages: A added, D deleted, M another version");
  return [arguments](Session& session) { return RunDiff(session, *arguments); };
}

}  // namespace mirage
