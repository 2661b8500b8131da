#include <algorithm>
#include <map>
#include <set>

#include "indexer/package_version.h"
#include "tools/history.h"
#include "tools/packages_report.h"
#include "tools/verbs.h"

namespace mirage {
namespace {

struct Wanted {
  std::string package;
  bool heads = false;
  std::vector<std::string> branches;
};

// What one inspection object has of the package: many versions share one.
struct Found {
  bool known = false;
  std::vector<Package> packages;
};

class PackageSearch {
 public:
  PackageSearch(Session& session, const Snapshot& snapshot, PackageQuery query)
      : session_(session), snapshot_(snapshot), query_(std::move(query)) {}

  Status Branch(const std::string& branch, bool heads) {
    // Tags in the order they were given; of one version the first.
    ASSIGN_OR_RETURN(const auto tags, snapshot_.Tags(branch));
    std::vector<std::pair<uint64_t, std::string>> order;
    for (const auto& [tag, ref] : tags) order.emplace_back(ref.sequence, tag);
    std::sort(order.begin(), order.end());
    ASSIGN_OR_RETURN(const auto head, snapshot_.Branch(branch));
    std::set<ObjectId> seen;
    for (const auto& [sequence, tag] : order) {
      const ObjectId& id = tags.at(tag).manifest;
      if (heads && (!head || head->manifest != id)) continue;
      if (seen.insert(id).second) TRY(Look(branch, tag, id));
    }
    return {};
  }
  uint64_t found() const { return found_; }
  uint64_t unknown() const { return unknown_; }

 private:
  Status Look(const std::string& branch, const std::string& tag, const ObjectId& id) {
    ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(snapshot_, id));
    const std::string name = branch + "/" + tag;
    auto [at, is_new] = cache_.try_emplace(manifest.inspection);
    if (is_new) {
      auto packages = ReadPackages(snapshot_, Version{id, manifest, branch, tag}, name);
      if (!packages && packages.error().code != ENODATA) return tl::make_unexpected(std::move(packages).error());
      at->second.known = packages.has_value();
      if (packages) {
        ASSIGN_OR_RETURN(const std::string text, snapshot_.ReadObject(ObjectKind::kInspection, manifest.inspection));
        ASSIGN_OR_RETURN(const SystemDescription system, DecodeSystem(text));
        const PackageFamily family = FamilyOf(system);
        for (Package& package : *packages) {
          if (package.name == query_.name && query_.Matches(package.version, family)) {
            at->second.packages.push_back(std::move(package));
          }
        }
      }
    }
    if (!at->second.known) {
      ++unknown_;
      if (unknown_ <= kMostUnknownNamed) session_.Say(fmt::format("{}: its packages are not known", name));
      return {};
    }
    for (const Package& package : at->second.packages) {
      ++found_;
      if (!session_.json) {
        session_.out->Line(
            session_.out->Fit(fmt::format("{} {} {} {}", name, package.name, package.version, package.arch)));
        continue;
      }
      Json json;
      json["version"] = name;
      json["branch"] = branch;
      json["tag"] = tag;
      json["id"] = id.Hex();
      AddText(json, "package", package.name);
      AddText(json, "package_version", package.version);
      AddText(json, "arch", package.arch);
      session_.out->Object(json);
    }
    return {};
  }

  static constexpr uint64_t kMostUnknownNamed = 20;
  Session& session_;
  const Snapshot& snapshot_;
  const PackageQuery query_;
  std::map<ObjectId, Found> cache_;
  uint64_t found_ = 0, unknown_ = 0;
};

}  // namespace

Action DeclareFind(Options& options) {
  auto wanted = std::make_shared<Wanted>();
  options.Value(
      "--package", wanted->package,
      "a package, perhaps with a version and one of < <= = >= >: 'openssl<3.0.11', in the order of dpkg or rpm; "
      "epochs count if the version has one");
  options.Flag("--heads", wanted->heads, "only the branches' heads: what is there now");
  options.Positionals("BRANCH", wanted->branches, "of these branches alone; else of all", 0, 0);
  return [wanted](Session& session) -> Result<int> {
    if (wanted->package.empty()) return UsageError("say what to find: --package 'NAME<VERSION'");
    auto query = ParsePackageQuery(wanted->package);
    if (!query) return UsageError("--package " + query.error().message);
    ASSIGN_OR_RETURN(const auto library, session.Open());
    const auto snapshot = library->snapshot();
    std::vector<std::string> branches = wanted->branches;
    if (branches.empty()) {
      ASSIGN_OR_RETURN(const auto all, snapshot->Branches());
      for (const auto& [branch, ref] : all) branches.push_back(branch);
    }
    PackageSearch search(session, *snapshot, std::move(*query));
    for (const std::string& branch : branches) {
      TRY(CheckBranchName(branch));
      ASSIGN_OR_RETURN(const auto head, snapshot->Branch(branch));
      if (!head) return Fail(ENOENT, "no branch {}", branch);
      TRY(search.Branch(branch, wanted->heads));
    }
    // Not to know is not to have: it must not pass for a clean answer.
    if (search.unknown() > 0) {
      session.Say(fmt::format("{} versions were not searched: their packages are not known", search.unknown()));
    }
    return kExitDone;
  };
}

}  // namespace mirage
