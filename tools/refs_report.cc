#include "tools/refs_report.h"

namespace mirage {

void PrintRef(Session& session, const std::string& branch, const std::string& tag, const ObjectId& id) {
  if (session.json) {
    Json json;
    json["version"] = branch + "/" + tag;
    json["branch"] = branch;
    json["tag"] = tag;
    json["id"] = id.Hex();
    session.out->Object(json);
  } else {
    session.out->Line(fmt::format("{}/{} {}", branch, tag, id.Hex()));
  }
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
