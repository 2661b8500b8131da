#include "tools/history.h"

#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>

namespace mirage {

Result<std::vector<HistoryVersion>> ReadHistory(const ObjectReader& reader, const std::vector<ObjectId>& all_tips,
                                                const std::vector<ObjectId>& excluded, size_t limit) {
  std::vector<HistoryVersion> history;
  // As long as one version alone is next, it comes before all that is left: `log -n 5` of a thousand reads five.
  std::vector<ObjectId> tips = all_tips;
  while (limit != 0 && excluded.empty() && tips.size() == 1) {
    ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(reader, tips[0]));
    const ObjectId id = std::exchange(tips, manifest.parents)[0];
    history.push_back({id, std::move(manifest)});
    if (history.size() == limit || tips.empty()) return history;
  }
  const auto collect = [&](const std::vector<ObjectId>& from, const std::map<ObjectId, Manifest>& without,
                           std::map<ObjectId, Manifest>* found) -> Status {
    std::vector<ObjectId> pending = from;
    while (!pending.empty()) {
      const ObjectId id = pending.back();
      pending.pop_back();
      if (without.contains(id) || found->contains(id)) continue;
      ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(reader, id));
      pending.insert(pending.end(), manifest.parents.begin(), manifest.parents.end());
      found->emplace(id, std::move(manifest));
    }
    return {};
  };
  std::map<ObjectId, Manifest> hidden, found;
  TRY(collect(excluded, {}, &hidden));
  TRY(collect(tips, hidden, &found));

  std::map<ObjectId, size_t> children;  // not yet put out
  for (const auto& [id, manifest] : found) {
    for (const ObjectId& parent : manifest.parents) ++children[parent];
  }
  using Key = std::tuple<int64_t, uint32_t, ObjectId>;
  std::priority_queue<Key> ready;
  const auto push = [&](const ObjectId& id) {
    const Manifest& manifest = found.at(id);
    ready.emplace(manifest.time_sec, manifest.time_nsec, id);
  };
  for (const auto& [id, manifest] : found) {
    if (!children.contains(id)) push(id);
  }
  while (!ready.empty()) {
    const ObjectId id = std::get<ObjectId>(ready.top());
    ready.pop();
    for (const ObjectId& parent : found.at(id).parents) {
      if (--children[parent] == 0 && found.contains(parent)) push(parent);
    }
    history.push_back({id, std::move(found.at(id))});
  }
  return history;
}

Result<std::map<ObjectId, std::vector<std::string>>> NamesOfVersions(const Snapshot& snapshot) {
  std::map<ObjectId, std::vector<std::string>> names;
  ASSIGN_OR_RETURN(const auto branches, snapshot.Branches());
  for (const auto& [branch, head] : branches) {
    names[head.manifest].push_back(branch);
    ASSIGN_OR_RETURN(const auto tags, snapshot.Tags(branch));
    std::vector<std::pair<uint64_t, std::string>> ordered;
    for (const auto& [tag, ref] : tags) ordered.emplace_back(ref.sequence, tag);
    std::sort(ordered.begin(), ordered.end());
    for (const auto& [sequence, tag] : ordered) names[tags.at(tag).manifest].push_back(branch + "/" + tag);
  }
  return names;
}

HistoryGraph::Rows HistoryGraph::Next(const ObjectId& id, const std::vector<ObjectId>& parents) {
  Rows rows;
  const auto trim = [](std::string line) {
    while (line.ends_with(' ')) line.pop_back();
    return line;
  };
  const auto bars = [](size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += "| ";
    return text;
  };
  auto found = std::find(columns_.begin(), columns_.end(), id);
  if (found == columns_.end()) found = columns_.insert(columns_.end(), id);
  const size_t at = static_cast<size_t>(found - columns_.begin());
  // Lines that lead to the same version meet above it, the rightmost first.
  for (size_t other = columns_.size(); other-- > at + 1;) {
    if (columns_[other] != id) continue;
    std::string line = bars(at) + "|";
    for (size_t i = at + 1; i < other; ++i) line += "_|";
    line += "/";
    for (size_t i = other + 1; i < columns_.size(); ++i) line += " /";
    columns_.erase(columns_.begin() + static_cast<std::ptrdiff_t>(other));
    rows.before.push_back(std::move(line));
  }
  rows.version = bars(at) + "* " + bars(columns_.size() - at - 1);
  const auto here = columns_.begin() + static_cast<std::ptrdiff_t>(at);
  if (parents.empty()) {
    std::string line = bars(at);
    for (size_t i = at + 1; i < columns_.size(); ++i) line += " /";
    if (columns_.size() > at + 1) rows.after.push_back(trim(line));
    columns_.erase(here);
    return rows;
  }
  *here = parents[0];
  for (size_t i = 1; i < parents.size(); ++i) {
    std::string line = bars(at + i - 1) + "|\\";
    for (size_t k = at + i; k < columns_.size(); ++k) line += " \\";
    rows.after.push_back(std::move(line));
    columns_.insert(columns_.begin() + static_cast<std::ptrdiff_t>(at + i), parents[i]);
  }
  return rows;
}

}  // namespace mirage
