#include <set>

#include "tools/history.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

Result<uint64_t> DirectoryBytes(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(const auto names, env.List(path));
  uint64_t bytes = 0;
  for (const std::string& name : names) {
    const auto info = env.Stat(path + "/" + name);
    if (!info && info.error().code == ENOENT) continue;  // a writer's compaction took it away
    if (!info) return tl::make_unexpected(info.error());
    if (!info->is_directory) bytes += info->size_bytes;
  }
  return bytes;
}

}  // namespace

Action DeclareStats(Options&) {
  return [](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    ASSIGN_OR_RETURN(const auto branches, snapshot->Branches());
    std::map<std::string, size_t> versions_of;  // by branch: the versions one sees under it in a mount
    std::vector<ObjectId> tips;
    for (const auto& [name, head] : branches) {
      std::set<ObjectId> versions{head.manifest};
      ASSIGN_OR_RETURN(const auto tags, snapshot->Tags(name));
      for (const auto& [tag, ref] : tags) versions.insert(ref.manifest);
      tips.insert(tips.end(), versions.begin(), versions.end());
      versions_of[name] = versions.size();
    }
    ASSIGN_OR_RETURN(const auto history, ReadHistory(*snapshot, tips, {}));
    uint64_t logical = 0, files = 0;
    for (const HistoryVersion& version : history) {
      logical += version.manifest.total_bytes;
      files += version.manifest.file_count;
    }
    ASSIGN_OR_RETURN(const uint64_t packs, DirectoryBytes(library->env(), library->packs_path()));
    ASSIGN_OR_RETURN(const uint64_t database, DirectoryBytes(library->env(), library->path() + "/db"));
    const uint64_t stored = packs + database;
    const double ratio = stored == 0 ? 0 : static_cast<double>(logical) / static_cast<double>(stored);
    if (session.json) {
      Json json;
      AddText(json, "library", library->path());
      json["versions"] = history.size();
      json["branches"] = Json::object();
      for (const auto& [name, count] : versions_of) json["branches"][name] = count;
      json["files"] = files;
      json["logical_bytes"] = logical;
      json["packs_bytes"] = packs;
      json["db_bytes"] = database;
      json["ratio"] = ratio;
      session.out->Object(json);
      return kExitDone;
    }
    Output& out = *session.out;
    out.Line("library: " + out.Fit(library->path()));
    out.Line(fmt::format("versions: {}", history.size()));
    out.Line(fmt::format("branches: {}", branches.size()));
    out.Line(fmt::format("files: {}", files));
    out.Line(fmt::format("logical bytes: {}", logical));
    out.Line(fmt::format("packs bytes: {}", packs));
    out.Line(fmt::format("db bytes: {}", database));
    out.Line(fmt::format("ratio: {:.2f}", ratio));
    for (const auto& [name, count] : versions_of) out.Line(fmt::format("branch {}: {} versions", name, count));
    return kExitDone;
  };
}

}  // namespace mirage
