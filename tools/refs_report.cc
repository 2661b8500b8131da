#include "tools/refs_report.h"

namespace mirage {

namespace {

Json RefJson(const std::string& branch, const std::string& tag, const ObjectId& id) {
  Json json;
  json["version"] = branch + "/" + tag;
  json["branch"] = branch;
  json["tag"] = tag;
  json["id"] = id.Hex();
  return json;
}

}  // namespace

void PrintRef(Session& session, const std::string& branch, const std::string& tag, const ObjectId& id) {
  if (session.json) {
    session.out->Object(RefJson(branch, tag, id));
  } else {
    session.out->Line(fmt::format("{}/{} {}", branch, tag, id.Hex()));
  }
}

void PrintCommit(Session& session, const std::optional<Published>& version, const ExcludedPaths& excluded) {
  excluded.Say([&](std::string_view line) { session.Say(line); });
  if (!session.json) {
    if (version) return PrintRef(session, version->branch, version->tag, version->manifest);
    session.out->Line("no changes");
    return;
  }
  Json json;
  if (version) {
    json = RefJson(version->branch, version->tag, version->manifest);
  } else {
    json["changed"] = false;
  }
  if (excluded.count > 0) {
    json["excluded"] = excluded.count;
    for (const std::string& path : excluded.shown) {
      Json one;
      AddText(one, "path", path);
      json["excluded_paths"].push_back(std::move(one));
    }
  }
  session.out->Object(json);
}

Result<RefName> ParseTagReference(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return Fail(EINVAL, "{}: not a tag; give BRANCH/TAG", text);
  RefName name{std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
  TRY(CheckBranchName(name.branch));
  TRY(CheckTagName(name.tag));
  return name;
}

}  // namespace mirage
