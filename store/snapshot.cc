#include "store/library.h"

namespace mirage {

Snapshot::~Snapshot() = default;

Result<std::string> Snapshot::ReadObject(ObjectKind kind, const ObjectId& id) const {
  ASSIGN_OR_RETURN(auto value, db_->Get(kind, id));
  if (!value) {
    return Fail(ENOENT, "object {} of kind '{}' is not in the library", id.Hex(), static_cast<char>(kind));
  }
  return std::move(*value);
}

Result<std::optional<Location>> Snapshot::FindChunk(const ObjectId& id) const {
  ASSIGN_OR_RETURN(const auto value, db_->Get(ObjectKind::kChunk, id));
  if (!value) return std::optional<Location>();
  ASSIGN_OR_RETURN(const Location location, DecodeLocation(*value));
  return std::optional<Location>(location);
}

Result<std::optional<Ref>> Snapshot::Branch(const std::string& name) const {
  if (const auto it = tail_.find(name); it != tail_.end()) return it->second;
  return db_->GetRef(name);
}

Result<std::optional<Ref>> Snapshot::Tag(const std::string& branch, const std::string& tag) const {
  return Branch(branch + "/" + tag);
}

Result<std::map<std::string, Ref>> Snapshot::Branches() const {
  ASSIGN_OR_RETURN(auto refs, db_->Refs(""));
  for (const auto& [name, ref] : tail_) {
    if (ref) {
      refs[name] = *ref;
    } else {
      refs.erase(name);
    }
  }
  std::erase_if(refs, [](const auto& item) { return item.first.find('/') != std::string::npos; });
  return refs;
}

Result<std::map<std::string, Ref>> Snapshot::Tags(const std::string& branch) const {
  const std::string prefix = branch + "/";
  ASSIGN_OR_RETURN(const auto refs, db_->Refs(prefix));
  std::map<std::string, Ref> tags;
  for (const auto& [name, ref] : refs) tags.emplace(name.substr(prefix.size()), ref);
  for (auto it = tail_.lower_bound(prefix); it != tail_.end() && it->first.starts_with(prefix); ++it) {
    if (it->second) {
      tags[it->first.substr(prefix.size())] = *it->second;
    } else {
      tags.erase(it->first.substr(prefix.size()));
    }
  }
  return tags;
}

Result<std::string> Snapshot::LatestTag(const std::string& branch) const {
  ASSIGN_OR_RETURN(const auto head, Branch(branch));
  if (!head) return Fail(ENOENT, "branch {}: no such branch; `mirage branch` lists them", branch);
  ASSIGN_OR_RETURN(const auto tags, Tags(branch));
  const std::pair<const std::string, Ref>* first = nullptr;
  for (const auto& item : tags) {
    if (item.second.manifest != head->manifest) continue;
    if (!first || item.second.sequence < first->second.sequence) first = &item;
  }
  if (!first) return Fail(ENOENT, "branch {}: its head has no tag", branch);
  return first->first;
}

Result<uint64_t> Snapshot::HighestVersion(const std::string& branch) const {
  if (const auto it = tail_highest_.find(branch); it != tail_highest_.end()) return it->second;
  return db_->HighestVersion(branch);
}

}  // namespace mirage
