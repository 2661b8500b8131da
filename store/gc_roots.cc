#include "store/gc_roots.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "store/library_impl.h"

namespace mirage {
namespace {

constexpr uint64_t kMaxOverlayRecordBytes = 256 << 10;

// An overlay is what has an overlay.json; before that it is being made, and its base is leased.
Result<std::optional<ObjectId>> OverlayBase(Env& env, const std::string& directory, const std::string& id) {
  const auto text = ReadWholeFile(env, directory + "/" + id + "/overlay.json", kMaxOverlayRecordBytes);
  if (!text && (text.error().code == ENOENT || text.error().code == ENOTDIR)) return std::optional<ObjectId>();
  if (!text) return tl::make_unexpected(text.error());
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  std::optional<ObjectId> base;
  if (json.is_object()) {
    if (const auto field = json.find("base"); field != json.end() && field->is_string()) {
      base = ObjectId::FromHex(field->get<std::string>());
    }
  }
  if (!base) {
    return Fail(EIO, "overlay {}: overlay.json does not say which version lies below it; mend or discard it first", id);
  }
  return base;
}

}  // namespace

Result<std::vector<ObjectId>> HeldVersions(const Library& library) {
  std::vector<ObjectId> held;
  // Leases before overlays: who makes an overlay leases its base until the overlay is there.
  ASSIGN_OR_RETURN(const auto sessions, LiveSessions(library.env(), Library::Impl::SessionsPath(library)));
  for (const SessionInfo& session : sessions) held.insert(held.end(), session.leases.begin(), session.leases.end());
  auto overlays = library.env().List(library.overlays_path());
  if (!overlays && overlays.error().code == ENOENT) overlays = std::vector<std::string>();
  if (!overlays) return tl::make_unexpected(std::move(overlays).error());
  for (const std::string& id : *overlays) {
    if (id.ends_with(kGoneOverlay)) continue;
    ASSIGN_OR_RETURN(const auto base, OverlayBase(library.env(), library.overlays_path(), id));
    if (base) held.push_back(*base);
  }
  return held;
}

Result<std::vector<ObjectId>> NamedVersions(const Snapshot& snapshot, const std::vector<std::string>& without) {
  std::vector<ObjectId> named;
  const std::set<std::string> left_out(without.begin(), without.end());
  // All names, tags of no branch among them, if there were such.
  ASSIGN_OR_RETURN(auto refs, snapshot.database().Refs(""));
  for (const auto& [name, ref] : Library::Impl::Tail(snapshot)) {
    if (ref) {
      refs[name] = *ref;
    } else {
      refs.erase(name);
    }
  }
  for (const auto& [name, ref] : refs) {
    if (!left_out.contains(name)) named.push_back(ref.manifest);
  }
  std::sort(named.begin(), named.end());
  named.erase(std::unique(named.begin(), named.end()), named.end());
  return named;
}

}  // namespace mirage
