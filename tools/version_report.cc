#include "tools/version_report.h"

namespace mirage {

Result<SystemFacts> ReadSystemFacts(const ObjectReader& reader, const Manifest& manifest) {
  SystemFacts facts;
  if (manifest.inspection.IsZero()) return facts;
  ASSIGN_OR_RETURN(const std::string text, reader.ReadObject(ObjectKind::kInspection, manifest.inspection));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Fail(EIO, "inspection {}: not JSON; run `mirage fsck`", manifest.inspection.Hex());
  facts.known = true;
  const auto packages = json.find("packages");
  if (packages != json.end() && packages->is_array()) facts.package_count = packages->size();
  if (const auto os = json.find("os"); os != json.end() && os->is_object()) {
    for (const char* key : {"product", "distro", "type"}) {
      const auto value = os->find(key);
      if (value == os->end() || !value->is_string()) continue;
      facts.product = value->get<std::string>();
      if (!facts.product.empty() && facts.product != "unknown") break;
    }
    const auto text_of = [&](const char* key) {
      const auto value = os->find(key);
      const std::string found = value != os->end() && value->is_string() ? value->get<std::string>() : "";
      return found == "unknown" ? "" : found;
    };
    const auto number_of = [&](const char* key) {
      const auto value = os->find(key);
      return value != os->end() && value->is_number_integer() ? value->get<int>() : 0;
    };
    facts.distribution = text_of("distro");
    if (const int major = number_of("major"), minor = number_of("minor"); major > 0 && !facts.distribution.empty()) {
      facts.distribution += minor > 0 ? fmt::format(" {}.{}", major, minor) : fmt::format(" {}", major);
    }
    facts.hostname = text_of("hostname");
    facts.arch = text_of("arch");
  }
  return facts;
}

Json VersionJson(const ObjectId& id, const Manifest& manifest, const std::vector<std::string>& names) {
  Json json;
  json["id"] = id.Hex();
  json["branches"] = Json::array();
  json["tags"] = Json::array();
  for (const std::string& name : names) json[name.find('/') == std::string::npos ? "branches" : "tags"].push_back(name);
  json["parents"] = Json::array();
  for (const ObjectId& parent : manifest.parents) json["parents"].push_back(parent.Hex());
  json["branch"] = manifest.branch;
  AddText(json, "author", manifest.author);
  json["time"] = FormatTime(manifest.time_sec, manifest.time_nsec);
  AddText(json, "message", manifest.message);
  AddText(json, "source", manifest.source);
  return json;
}

std::string JoinNames(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string FirstLine(const std::string& message) { return message.substr(0, message.find('\n')); }

}  // namespace mirage
