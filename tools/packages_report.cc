#include "tools/packages_report.h"

#include <algorithm>
#include <map>
#include <utility>

namespace mirage {

Result<std::vector<Package>> ReadPackages(const ObjectReader& reader, const Version& version, std::string_view name) {
  if (version.manifest.inspection.IsZero()) {
    return Fail(ENODATA,
                "{}: its packages are not known: no system was found in it, or it was not imported from a disk", name);
  }
  ASSIGN_OR_RETURN(const std::string text, reader.ReadObject(ObjectKind::kInspection, version.manifest.inspection));
  ASSIGN_OR_RETURN(SystemDescription system, DecodeSystem(text));
  if (system.packages.empty()) {
    for (const std::string& omission : version.manifest.omissions) {
      if (omission.find("packages could not be listed") != std::string::npos) {
        return Fail(ENODATA, "{}: its packages are not known: {}", name, omission);
      }
    }
  }
  return std::move(system.packages);
}

size_t PrintPackageDifferences(Session& session, const std::vector<Package>& before,
                               const std::vector<Package>& after) {
  // What one name and architecture has: usually one version; several, as kernels have, are compared as a set.
  using Key = std::pair<std::string, std::string>;
  std::map<Key, std::pair<std::vector<std::string>, std::vector<std::string>>> all;
  for (const Package& package : before) all[{package.name, package.arch}].first.push_back(package.version);
  for (const Package& package : after) all[{package.name, package.arch}].second.push_back(package.version);
  size_t count = 0;
  const auto print = [&](char kind, const Key& key, const std::string& from, const std::string& to) {
    ++count;
    if (session.json) {
      Json json;
      json["change"] = std::string(1, kind);
      AddText(json, "package", key.first);
      AddText(json, "arch", key.second);
      if (!from.empty()) AddText(json, "before", from);
      if (!to.empty()) AddText(json, "after", to);
      session.out->Object(json);
      return;
    }
    const std::string versions = from.empty() ? to : to.empty() ? from : fmt::format("{} -> {}", from, to);
    session.out->Line(session.out->Fit(fmt::format("{} {}:{} {}", kind, key.first, key.second, versions)));
  };
  for (auto& [key, versions] : all) {
    auto& [old_ones, new_ones] = versions;
    for (auto at = old_ones.begin(); at != old_ones.end();) {
      const auto same = std::find(new_ones.begin(), new_ones.end(), *at);
      if (same == new_ones.end()) {
        ++at;
        continue;
      }
      new_ones.erase(same);
      at = old_ones.erase(at);
    }
    const size_t pairs = std::min(old_ones.size(), new_ones.size());
    for (size_t i = 0; i < pairs; ++i) print('M', key, old_ones[i], new_ones[i]);
    for (size_t i = pairs; i < old_ones.size(); ++i) print('D', key, old_ones[i], "");
    for (size_t i = pairs; i < new_ones.size(); ++i) print('A', key, "", new_ones[i]);
  }
  return count;
}

}  // namespace mirage
