#include "indexer/system_description.h"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace mirage {

using Json = nlohmann::json;

std::string EncodeSystem(SystemDescription system) {
  std::sort(system.packages.begin(), system.packages.end());
  Json packages = Json::array();
  for (Package& package : system.packages) {
    packages.push_back({{"name", std::move(package.name)},
                        {"version", std::move(package.version)},
                        {"arch", std::move(package.arch)}});
  }
  Json whole = {{"schema", 1},
                      {"os",
                       {{"type", system.type},
                        {"distro", system.distro},
                        {"product", system.product},
                        {"major", system.major},
                        {"minor", system.minor},
                        {"hostname", system.hostname},
                        {"arch", system.arch}}},
                      {"packages", std::move(packages)},
                      {"mountpoints", Json(system.mountpoints)}};
  if (Json container = Json::parse(system.container, nullptr, false); container.is_object()) {
    whole["container"] = std::move(container);
  }
  if (!system.layers.empty()) whole["layers"] = system.layers;
  return whole.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<SystemDescription> DecodeSystem(std::string_view json) {
  const Json whole = Json::parse(json, nullptr, false);
  SystemDescription system;
  try {
    if (const int schema = whole.at("schema").get<int>(); schema != 1) {
      return Fail(EPROTONOSUPPORT, "an inspection of schema {}; a newer mirage wrote it", schema);
    }
    const Json& os = whole.at("os");
    system.type = os.at("type");
    system.distro = os.at("distro");
    system.product = os.at("product");
    system.hostname = os.at("hostname");
    system.arch = os.at("arch");
    system.major = os.at("major");
    system.minor = os.at("minor");
    for (const Json& package : whole.at("packages")) {
      system.packages.push_back({package.at("name"), package.at("version"), package.at("arch")});
    }
    for (const auto& [path, device] : whole.at("mountpoints").items()) system.mountpoints[path] = device;
    if (const auto container = whole.find("container"); container != whole.end()) system.container = container->dump();
    if (const auto layers = whole.find("layers"); layers != whole.end()) system.layers = *layers;
  } catch (const Json::exception&) {
    return Fail(EIO, "an inspection object is damaged");
  }
  return system;
}

}  // namespace mirage
