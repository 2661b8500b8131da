#include <algorithm>
#include <set>

#include "store/accounting.h"
#include "store/gc_roots.h"
#include "store/revision.h"
#include "tools/completeness.h"
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

struct Owner {
  std::string name;
  std::set<ObjectId> versions;
};

// What each owner alone reaches and what it shares: with other owners, with what the refs that `is_other` picks name, with overlays
// and leases.
Result<Accounting> Account(Library& library, const std::vector<Owner>& owners,
                           const std::function<bool(const std::string& ref, const ObjectId& version)>& is_other) {
  // Its directory is the scratch place, and its snapshot keeps the packs where they are.
  ASSIGN_OR_RETURN(const auto transaction, library.Begin("stats"));
  ASSIGN_OR_RETURN(const std::vector<ObjectId> held, HeldVersions(library));
  std::set<ObjectId> rest(held.begin(), held.end());
  ASSIGN_OR_RETURN(const auto branches, transaction->base().Branches());
  for (const auto& [branch, head] : branches) {
    if (is_other(branch, head.manifest)) rest.insert(head.manifest);
    ASSIGN_OR_RETURN(const auto tags, transaction->base().Tags(branch));
    for (const auto& [tag, ref] : tags) {
      if (is_other(branch + "/" + tag, ref.manifest)) rest.insert(ref.manifest);
    }
  }
  std::vector<std::vector<ObjectId>> sets;
  for (const Owner& owner : owners) sets.emplace_back(owner.versions.begin(), owner.versions.end());
  sets.emplace_back(rest.begin(), rest.end());
  return AccountFor(library, transaction->base(), sets, transaction->directory());
}

Json UsageJson(const Usage& usage) {
  Json json;
  json["stored_bytes"] = usage.stored_bytes;
  json["chunk_bytes"] = usage.chunk_bytes;
  json["chunks"] = usage.chunks;
  json["object_bytes"] = usage.object_bytes;
  json["objects"] = usage.objects;
  return json;
}

uint64_t Bytes(const Usage& usage) { return usage.stored_bytes + usage.object_bytes; }

void PrintUsage(Session& session, const char* what, const std::string& name, const OwnerUsage& usage) {
  if (session.json) {
    Json json;
    json[what] = name;
    json["exclusive"] = UsageJson(usage.exclusive);
    json["shared"] = UsageJson(usage.shared);
    json["frees_bytes"] = Bytes(usage.exclusive);
    session.out->Object(json);
    return;
  }
  session.out->Line(fmt::format("{} {}: deleting it frees {} ({} chunks, {} objects); shares {}", what, name,
                                FormatSize(Bytes(usage.exclusive)), usage.exclusive.chunks, usage.exclusive.objects,
                                FormatSize(Bytes(usage.shared))));
}

// A branch as a whole, and each of its versions.
Status BranchStats(Session& session, Library& library, const std::string& branch, const Ref& head) {
  Owner whole{branch, {head.manifest}};
  ASSIGN_OR_RETURN(const auto tags, library.snapshot()->Tags(branch));
  std::map<ObjectId, std::vector<std::pair<uint64_t, std::string>>> names;
  for (const auto& [tag, ref] : tags) {
    whole.versions.insert(ref.manifest);
    names[ref.manifest].emplace_back(ref.sequence, branch + "/" + tag);
  }
  std::map<uint64_t, Owner> in_order;  // by the first tag's sequence
  for (auto& [id, list] : names) {
    std::sort(list.begin(), list.end());
    in_order[list.front().first] = {list.front().second, {id}};
  }
  ASSIGN_OR_RETURN(const Accounting together, Account(library, {whole}, [&](const std::string& ref, const ObjectId&) {
    return ref.substr(0, ref.find('/')) != branch;
  }));
  PrintUsage(session, "branch", branch, together.owners[0]);
  std::vector<Owner> versions;
  for (auto& [sequence, owner] : in_order) versions.push_back(std::move(owner));
  ASSIGN_OR_RETURN(const Accounting apart, Account(library, versions, [&](const std::string&, const ObjectId& version) {
    return !whole.versions.contains(version);
  }));
  for (size_t i = 0; i < versions.size(); ++i) PrintUsage(session, "version", versions[i].name, apart.owners[i]);
  return {};
}

Result<int> StatsOf(Session& session, Library& library, const std::string& name) {
  const auto snapshot = library.snapshot();
  if (name.find_first_of("/@~:") == std::string::npos) {
    TRY(CheckBranchName(name));
    ASSIGN_OR_RETURN(const auto head, snapshot->Branch(name));
    if (!head) return Fail(ENOENT, "{}: no such branch", name);
    ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(*snapshot, head->manifest));
    WarnIfIncomplete(name, manifest);
    TRY(BranchStats(session, library, name, *head));
    return kExitDone;
  }
  ASSIGN_OR_RETURN(const Version version, ResolveVersion(*snapshot, name));
  WarnIfIncomplete(name, version.manifest);
  ASSIGN_OR_RETURN(const Accounting accounting, Account(library, {{name, {version.id}}}, [&](const std::string&, const ObjectId& other) { return other != version.id; }));
  PrintUsage(session, "version", name, accounting.owners[0]);
  return kExitDone;
}

}  // namespace

Action DeclareStats(Options& options) {
  auto name = std::make_shared<std::string>();
  options.Positional("VERSION|BRANCH", *name, "what it uses alone and what it shares; none: the whole library", false);
  return [name](Session& session) -> Result<int> {
    ASSIGN_OR_RETURN(const auto library, session.Open());
    if (!name->empty()) return StatsOf(session, *library, *name);
    const auto snapshot = library->snapshot();
    ASSIGN_OR_RETURN(const auto branches, snapshot->Branches());
    std::map<std::string, size_t> versions_of;  // by branch: the versions one sees under it in a mount
    std::vector<ObjectId> tips;
    std::vector<Owner> owners;
    for (const auto& [branch, head] : branches) {
      std::set<ObjectId> versions{head.manifest};
      ASSIGN_OR_RETURN(const auto tags, snapshot->Tags(branch));
      for (const auto& [tag, ref] : tags) versions.insert(ref.manifest);
      tips.insert(tips.end(), versions.begin(), versions.end());
      versions_of[branch] = versions.size();
      owners.push_back({branch, std::move(versions)});
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
    ASSIGN_OR_RETURN(const Accounting accounting, Account(*library, owners, [](const std::string&, const ObjectId&) { return false; }));
    if (session.json) {
      Json json;
      AddText(json, "library", library->path());
      json["versions"] = history.size();
      json["branches"] = Json::object();
      for (const auto& [branch, count] : versions_of) json["branches"][branch] = count;
      json["live"] = UsageJson(accounting.live);
      for (size_t i = 0; i < owners.size(); ++i) {
        json["usage"][owners[i].name]["exclusive"] = UsageJson(accounting.owners[i].exclusive);
        json["usage"][owners[i].name]["shared"] = UsageJson(accounting.owners[i].shared);
      }
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
    out.Line(fmt::format("in use: {} bytes of chunks, {} bytes of metadata", accounting.live.stored_bytes,
                         accounting.live.object_bytes));
    for (const auto& [branch, count] : versions_of) out.Line(fmt::format("branch {}: {} versions", branch, count));
    for (size_t i = 0; i < owners.size(); ++i) PrintUsage(session, "branch", owners[i].name, accounting.owners[i]);
    return kExitDone;
  };
}

}  // namespace mirage
