#include "indexer/recipe.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>

#include "indexer/guest_keys.h"
#include "store/revision.h"

namespace mirage {
namespace {

// What may stand in `defaults` as well.
constexpr std::string_view kCommon[] = {"exclude", "format",   "reader", "message",        "paranoid",
                                        "keys",    "platform", "layers", "skip_unreadable"};

class Parser {
 public:
  Parser(std::string_view file, const std::string& directory) : file_(file), directory_(directory) {}

  Result<std::vector<RecipeEntry>> Run(std::string_view yaml) {
    const YAML::Node root = YAML::Load(std::string(yaml));
    if (!root.IsMap()) return Wrong(root, "a recipe is a map with `images`, and perhaps `defaults`");
    YAML::Node images;
    ImportOptions defaults;
    for (const auto& item : root) {
      const auto key = item.first.as<std::string>();
      if (key == "images") {
        images.reset(item.second);
      } else if (key == "defaults") {
        if (!item.second.IsMap()) return Wrong(item.second, "defaults must be a map");
        for (const auto& setting : item.second) {
          const auto name = setting.first.as<std::string>();
          if (std::find(std::begin(kCommon), std::end(kCommon), name) == std::end(kCommon)) {
            return Wrong(setting.first, fmt::format("unknown setting \"{}\" of defaults", name));
          }
          TRY(Set(name, setting.first, setting.second, defaults));
        }
      } else {
        return Wrong(item.first, fmt::format("unknown setting \"{}\"", key));
      }
    }
    if (!images.IsSequence() || images.size() == 0) return Wrong(root, "images must be a list of images");
    std::vector<RecipeEntry> entries;
    std::map<std::string, int> tags;
    for (const auto& image : images) {
      if (!image.IsMap()) return Wrong(image, "an image is a map with `source` and `version`");
      RecipeEntry entry;
      entry.options = defaults;
      entry.line = image.Mark().line + 1;
      std::map<std::string, int> seen;
      for (const auto& setting : image) {
        const auto name = setting.first.as<std::string>();
        if (!seen.emplace(name, 0).second) return Wrong(setting.first, fmt::format("\"{}\" comes twice", name));
        TRY(Set(name, setting.first, setting.second, entry.options));
      }
      if (entry.options.source.empty()) return Wrong(image, "an image without a source");
      if (seen.contains("source") && seen.contains("disks")) return Wrong(image, "source or disks, not both");
      if (entry.options.branch.empty()) return Wrong(image, "an image without a version (BRANCH or BRANCH/TAG)");
      if (!entry.options.tag.empty()) {
        const std::string tag = entry.options.branch + "/" + entry.options.tag;
        if (const auto [at, is_new] = tags.emplace(tag, entry.line); !is_new) {
          return Wrong(image, fmt::format("{} is that of line {} too", tag, at->second));
        }
      }
      entries.push_back(std::move(entry));
    }
    return entries;
  }

 private:
  tl::unexpected<Error> Wrong(const YAML::Node& node, std::string_view what) const {
    return Fail(EINVAL, "{}: line {}: {}", file_, std::max(node.Mark().line, 0) + 1, what);
  }

  Status Set(const std::string& name, const YAML::Node& key, const YAML::Node& value, ImportOptions& options) const {
    const auto text = [&](std::string& out) -> Status {
      if (!value.IsScalar() || value.Scalar().empty()) return Wrong(key, fmt::format("{} must be a text", name));
      out = value.Scalar();
      return {};
    };
    const auto flag = [&](bool& out) -> Status {
      if (!value.IsScalar() || (value.Scalar() != "true" && value.Scalar() != "false")) {
        return Wrong(key, fmt::format("{} must be true or false", name));
      }
      out = value.Scalar() == "true";
      return {};
    };
    const auto list = [&](std::vector<std::string>& out) -> Status {  // adds to it
      if (!value.IsSequence() || value.size() == 0) return Wrong(key, fmt::format("{} must be a list", name));
      for (const auto& item : value) {
        if (!item.IsScalar() || item.Scalar().empty()) return Wrong(item, fmt::format("{}: each must be a text", name));
        out.push_back(item.Scalar());
      }
      return {};
    };
    if (name == "source") {
      TRY(text(options.source));
      if (options.source == "-") return Wrong(value, "standard input is no source for a recipe");
      options.source = Absolute(options.source);
      return {};
    }
    if (name == "disks") {
      std::vector<std::string> disks;
      TRY(list(disks));
      for (std::string& disk : disks) disk = Absolute(disk);
      options.source = disks.front();
      options.more_disks.assign(disks.begin() + 1, disks.end());
      return {};
    }
    if (name == "keys") {
      std::vector<std::string> keys;
      TRY(list(keys));
      for (std::string& given : keys) {
        const auto parts = SplitGuestKey(given);
        if (!parts) return Wrong(value, "keys: " + parts.error().message);
        if (parts->is_file) given = fmt::format("{}:file:{}", parts->id, Absolute(parts->value));
        options.keys.push_back(std::move(given));
      }
      return {};
    }
    if (name == "version") {
      std::string version;
      TRY(text(version));
      const size_t slash = version.find('/');
      options.branch = version.substr(0, slash);
      Status status = CheckBranchName(options.branch);
      if (status && slash != std::string::npos) {
        options.tag = version.substr(slash + 1);
        status = CheckTagName(options.tag);
      }
      return status ? Status() : Wrong(value, status.error().message);
    }
    if (name == "message") return text(options.message);
    if (name == "parent") return text(options.parent);
    if (name == "format") return text(options.format);
    if (name == "reader") {
      TRY(text(options.reader));
      if (options.reader != "auto" && options.reader != "guestfs" && options.reader != "direct") {
        return Wrong(value, "reader must be auto, guestfs or direct");
      }
      return {};
    }
    if (name == "image") return text(options.image);
    if (name == "platform") return text(options.platform);
    if (name == "layers") return flag(options.layers);
    if (name == "skip_unreadable") return flag(options.skip_unreadable);
    if (name == "paranoid") return flag(options.paranoid);
    if (name == "exclude") return list(options.exclude);
    return Wrong(key, fmt::format("unknown setting \"{}\"", name));
  }

  std::string Absolute(const std::string& path) const { return path.starts_with('/') ? path : directory_ + "/" + path; }

  const std::string file_;
  const std::string directory_;
};

}  // namespace

Result<std::vector<RecipeEntry>> ParseRecipe(std::string_view yaml, std::string_view file_name,
                                             const std::string& directory) {
  try {
    return Parser(file_name, directory).Run(yaml);
  } catch (const YAML::Exception& error) {
    return Fail(EINVAL, "{}: line {}: {}", file_name, std::max(error.mark.line, 0) + 1, error.msg);
  }
}

Result<bool> IsDone(const Snapshot& snapshot, const ImportOptions& entry) {
  if (entry.tag.empty()) return false;
  ASSIGN_OR_RETURN(const auto tag, snapshot.Tag(entry.branch, entry.tag));
  if (!tag) return false;
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(snapshot, tag->manifest));
  const std::string source = SourceName(entry);
  if (manifest.source == source || manifest.source.starts_with(source + " ("))
    return true;  // (NAME): a container's image
  return Fail(EEXIST, "{}/{}: the tag is taken, by a version of {}; choose another, or delete it", entry.branch,
              entry.tag, manifest.source);
}

}  // namespace mirage
