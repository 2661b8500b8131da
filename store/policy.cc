#include <yaml-cpp/yaml.h>

#include "store/library.h"

namespace mirage {

Result<Policy> ParsePolicy(std::string_view yaml, std::string_view file_name) {
  Policy policy;
  try {
    const YAML::Node root = YAML::Load(std::string(yaml));
    if (root.IsNull()) return policy;
    if (!root.IsMap()) return Fail(EINVAL, "{}: not a map of settings; see the README", file_name);
    const auto number = [&](const YAML::Node& node, std::string_view key, int64_t low, int64_t high) -> Result<int64_t> {
      const auto value = node.as<int64_t>();
      if (value < low || value > high) {
        return Fail(EINVAL, "{}: line {}: {} must be from {} to {}", file_name, node.Mark().line + 1, key, low, high);
      }
      return value;
    };
    for (const auto& item : root) {
      const auto key = item.first.as<std::string>();
      const YAML::Node& value = item.second;
      if (key == "compression_level") {
        ASSIGN_OR_RETURN(const int64_t level, number(value, key, 1, 19));
        policy.compression_level = static_cast<int>(level);
      } else if (key == "compact_level") {
        ASSIGN_OR_RETURN(const int64_t level, number(value, key, 1, 19));
        policy.compact_level = static_cast<int>(level);
      } else if (key == "retention") {
        if (!value.IsMap()) {
          return Fail(EINVAL, "{}: line {}: retention must be a map of keep_last, keep_daily, keep_weekly, keep_monthly, keep_tags",
                      file_name, value.Mark().line + 1);
        }
        for (const auto& part : value) {
          const auto name = part.first.as<std::string>();
          uint64_t* count = name == "keep_last"      ? &policy.retention.last
                            : name == "keep_daily"   ? &policy.retention.daily
                            : name == "keep_weekly"  ? &policy.retention.weekly
                            : name == "keep_monthly" ? &policy.retention.monthly
                                                     : nullptr;
          if (count != nullptr) {
            ASSIGN_OR_RETURN(const int64_t kept, number(part.second, name, 0, 1'000'000));
            *count = static_cast<uint64_t>(kept);
          } else if (name == "keep_tags" && part.second.IsSequence()) {
            for (const auto& pattern : part.second) policy.retention.tags.push_back(pattern.as<std::string>());
          } else {
            return Fail(EINVAL, "{}: line {}: unknown setting \"{}\" of retention", file_name, part.first.Mark().line + 1, name);
          }
        }
      } else if (key == "lock_timeout_ms") {
        ASSIGN_OR_RETURN(const int64_t timeout, number(value, key, 0, 86'400'000));
        policy.lock_timeout_ms = static_cast<int>(timeout);
      } else if (key == "cache_bytes") {
        ASSIGN_OR_RETURN(const int64_t bytes, number(value, key, 1 << 20, int64_t{1} << 40));
        policy.cache_bytes = static_cast<size_t>(bytes);
      } else if (key == "max_hole_bytes") {
        ASSIGN_OR_RETURN(const int64_t bytes, number(value, key, 0, INT64_MAX));
        policy.max_hole_bytes = static_cast<uint64_t>(bytes);
      } else if (key == "exclude") {
        if (!value.IsSequence()) {
          return Fail(EINVAL, "{}: line {}: exclude must be a list of patterns", file_name, value.Mark().line + 1);
        }
        for (const auto& pattern : value) policy.exclude.push_back(pattern.as<std::string>());
      } else {
        return Fail(EINVAL, "{}: line {}: unknown setting \"{}\"", file_name, item.first.Mark().line + 1, key);
      }
    }
  } catch (const YAML::Exception& error) {
    return Fail(EINVAL, "{}: line {}: {}", file_name, error.mark.line + 1, error.msg);
  }
  return policy;
}

}  // namespace mirage
