#include <algorithm>

#include "store/diff.h"
#include "store/revision.h"
#include "tools/history.h"
#include "tools/verbs.h"
#include "tools/version_path.h"
#include "tools/version_report.h"

namespace mirage {
namespace {

// Whether `path` (as a tree path) differs between the two in anything that `diff` would print.
Result<bool> PathDiffers(const TreeReader& reader, const Manifest& a, const Manifest& b, const std::string& path) {
  const auto find = [&](const Manifest& manifest) -> Result<std::optional<Entry>> {
    auto entry = reader.Find(manifest.root, path);
    if (entry) return std::optional<Entry>(std::move(*entry));
    if (entry.error().code == ENOENT || entry.error().code == ENOTDIR) return std::optional<Entry>();
    return tl::make_unexpected(std::move(entry).error());
  };
  ASSIGN_OR_RETURN(const auto before, find(a));
  ASSIGN_OR_RETURN(const auto after, find(b));
  if (before.has_value() != after.has_value()) return true;
  if (!before) return false;
  if (*before != *after) return true;
  if (a.links == b.links) return false;
  // Equal entries; what is left is hard links. The first difference is enough.
  bool differs = false;
  const auto status = DiffVersions(reader, a, b, path, [&](const Change&) -> Status {
    differs = true;
    return Fail(ECANCELED, "seen enough");
  });
  if (!status && !differs) return tl::make_unexpected(status.error());
  return differs;
}

// A version changed a path if it differs from each of its parents, as git has it; the first version changed what it
// has.
Result<bool> ChangedPaths(const TreeReader& reader, const Snapshot& snapshot, const HistoryVersion& version,
                          const std::vector<std::string>& paths) {
  // What gc has removed the contents of cannot be asked, and what comes behind it is compared with nothing.
  if (!CheckContents(snapshot, version.id)) return false;
  std::vector<ObjectId> parents;
  for (const ObjectId& parent : version.manifest.parents) {
    if (CheckContents(snapshot, parent)) parents.push_back(parent);
  }
  for (const std::string& path : paths) {
    if (parents.empty()) {
      const auto entry = reader.Find(version.manifest.root, path);
      if (entry) return true;
      if (entry.error().code != ENOENT && entry.error().code != ENOTDIR) return tl::make_unexpected(entry.error());
      continue;
    }
    bool differs_from_all = true;
    for (const ObjectId& parent : parents) {
      ASSIGN_OR_RETURN(const Manifest before, ReadManifest(snapshot, parent));
      ASSIGN_OR_RETURN(const bool differs, PathDiffers(reader, before, version.manifest, path));
      if (!differs) {
        differs_from_all = false;
        break;
      }
    }
    if (differs_from_all) return true;
  }
  return false;
}

void PrintText(Output& out, const HistoryVersion& version, const std::string& names) {
  const Manifest& manifest = version.manifest;
  out.Line(
      fmt::format("version {}{}{}{}", version.id.Hex(), names.empty() ? "" : " (", names, names.empty() ? "" : ")"));
  if (manifest.parents.size() > 1) {
    std::string line = "Merge: ";
    for (const ObjectId& parent : manifest.parents) line += " " + ShortId(parent);
    out.Line(line);
  }
  out.Line("Author: " + out.Fit(manifest.author));
  out.Line("Date:   " + FormatTime(manifest.time_sec, manifest.time_nsec));
  if (!manifest.source.empty()) out.Line("Source: " + out.Fit(manifest.source));
  if (manifest.message.empty()) return;
  out.Line("");
  for (size_t start = 0; start < manifest.message.size();) {
    const size_t end = std::min(manifest.message.find('\n', start), manifest.message.size());
    out.Line("    " + out.Fit(manifest.message.substr(start, end - start)));
    start = end + 1;
  }
}

struct Arguments {
  std::string version;
  bool graph = false, oneline = false;
  uint64_t limit = 0;
};

Result<int> RunLog(Session& session, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto library, session.Open());
  const auto snapshot = library->snapshot();
  const TreeReader reader(library);
  std::vector<std::string> paths;
  for (const std::string& path : session.paths) {
    ASSIGN_OR_RETURN(paths.emplace_back(), TreePath(path));
  }
  std::vector<ObjectId> tips, excluded;
  if (arguments.version.empty()) {
    ASSIGN_OR_RETURN(const auto branches, snapshot->Branches());
    for (const auto& [name, head] : branches) tips.push_back(head.manifest);
  } else if (const auto range = SplitRange(arguments.version)) {
    ASSIGN_OR_RETURN(const Version from, ResolveVersion(*snapshot, range->first));
    ASSIGN_OR_RETURN(const Version to, ResolveVersion(*snapshot, range->second));
    excluded.push_back(from.id);
    tips.push_back(to.id);
  } else {
    ASSIGN_OR_RETURN(const VersionPath named, ResolveVersionPath(*snapshot, arguments.version));
    tips.push_back(named.version.id);
    if (named.path) {
      ASSIGN_OR_RETURN(paths.emplace_back(), TreePath(*named.path));
    }
  }
  // Which of them changed a path is known only when all were looked at; the graph's lines need what is behind.
  const uint64_t limit = paths.empty() && !arguments.graph ? arguments.limit : 0;
  ASSIGN_OR_RETURN(const auto history, ReadHistory(*snapshot, tips, excluded, static_cast<size_t>(limit)));
  ASSIGN_OR_RETURN(const auto names, NamesOfVersions(*snapshot));

  std::vector<bool> shown(history.size(), true);
  if (!paths.empty()) {
    for (size_t i = 0; i < history.size(); ++i) {
      ASSIGN_OR_RETURN(shown[i], ChangedPaths(reader, *snapshot, history[i], paths));
    }
  }
  // For the graph: a version's nearest shown ancestors, and what its children see: itself, or those. Parents come later
  // in `history`, so from the end.
  std::map<ObjectId, std::vector<ObjectId>> lines, seen_by_children;
  for (size_t i = history.size(); arguments.graph && i-- > 0;) {
    std::vector<ObjectId> nearest;
    for (const ObjectId& parent : history[i].manifest.parents) {
      const auto found = seen_by_children.find(parent);
      if (found == seen_by_children.end()) continue;
      for (const ObjectId& id : found->second) {
        if (std::find(nearest.begin(), nearest.end(), id) == nearest.end()) nearest.push_back(id);
      }
    }
    seen_by_children[history[i].id] = shown[i] ? std::vector<ObjectId>{history[i].id} : nearest;
    lines[history[i].id] = std::move(nearest);
  }

  Output& out = *session.out;
  HistoryGraph graph;
  uint64_t printed = 0;
  for (size_t i = 0; i < history.size(); ++i) {
    if (!shown[i]) continue;
    if (arguments.limit != 0 && printed == arguments.limit) break;
    const HistoryVersion& version = history[i];
    const auto found = names.find(version.id);
    const std::vector<std::string> own = found == names.end() ? std::vector<std::string>() : found->second;
    if (session.json) {
      out.Object(VersionJson(version.id, version.manifest, own));
    } else if (arguments.graph || arguments.oneline) {
      const std::string label = JoinNames(own);
      const std::string text = fmt::format("{} {}{}{}{}", ShortId(version.id), label.empty() ? "" : "(", label,
                                           label.empty() ? "" : ") ", out.Fit(FirstLine(version.manifest.message)));
      HistoryGraph::Rows rows;
      if (arguments.graph) rows = graph.Next(version.id, lines.at(version.id));
      for (const std::string& row : rows.before) out.Line(row);
      out.Line(rows.version + text);
      for (const std::string& row : rows.after) out.Line(row);
    } else {
      if (printed > 0) out.Line("");
      PrintText(out, version, JoinNames(own));
    }
    ++printed;
  }
  return kExitDone;
}

}  // namespace

Action DeclareLog(Options& options) {
  auto arguments = std::make_shared<Arguments>();
  options.Positional("VERSION", arguments->version, "where to start, or a range A..B; else every branch", false);
  options.Flag("--graph", arguments->graph, "draw the lines of descent, one line a version");
  options.Flag("--oneline", arguments->oneline, "one line a version");
  options.Value("-n,--max-count", arguments->limit, "at most so many versions");
  return [arguments](Session& session) { return RunLog(session, *arguments); };
}

}  // namespace mirage
