// Objects in memory: a reader and a writer that count, for tests of what is built from objects.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>

#include "store/object.h"

namespace mirage::testing {

class MemoryObjects final : public ObjectReader, public ObjectWriter {
 public:
  Result<std::string> ReadObject(ObjectKind kind, const ObjectId& id) const override {
    const std::lock_guard lock(mutex_);
    ++reads;
    const auto found = objects.find({kind, id});
    if (found == objects.end()) return Fail(ENOENT, "object {}: not here", id.Hex());
    return found->second;
  }
  Result<ObjectId> WriteObject(ObjectKind kind, std::string_view encoding) override {
    const ObjectId id = HashBytes(encoding);
    const std::lock_guard lock(mutex_);
    if (objects.emplace(std::pair(kind, id), encoding).second) new_bytes += encoding.size();
    return id;
  }
  Status WriteContentList(const ObjectId& content, std::string_view encoding) override {
    const std::lock_guard lock(mutex_);
    objects.emplace(std::pair(ObjectKind::kContent, content), encoding);
    return {};
  }

  std::map<std::pair<ObjectKind, ObjectId>, std::string> objects;
  mutable size_t reads = 0;
  size_t new_bytes = 0;  // written and not there before

 private:
  mutable std::mutex mutex_;
};

}  // namespace mirage::testing
