#include "indexer/container_image.h"

#include <sys/utsname.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "store/object_id.h"

namespace mirage {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxDocumentBytes = 4 << 20;  // what registries take for a manifest
constexpr uint64_t kMaxDocumentsBytes = 64 << 20;  // all that are looked at
constexpr size_t kMaxNameLength = 1024;        // of an image, with its registry
constexpr size_t kMaxConfigBytes = 64 << 10;   // of what to run
constexpr int kMaxNesting = 64;
constexpr int kMaxIndexDepth = 8;
constexpr size_t kMaxLayers = 1024;
constexpr size_t kMaxMessage = 1000;
constexpr size_t kMaxListed = 20;

// nlohmann's parser does not mind depth; what comes after it does.
bool TooDeep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && (text[i] == '[' || text[i] == '{') && ++depth > kMaxNesting) {
      return true;
    } else if (!quoted && (text[i] == ']' || text[i] == '}')) {
      --depth;
    }
  }
  return false;
}

Result<Json> Parse(const std::string& text, std::string_view name) {
  Json json = TooDeep(text) ? Json() : Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_structured()) return Fail(EINVAL, "{} is not the JSON of an image", name);
  return json;
}

// A member that is a string; empty: there is none.
std::string Text(const Json& json, const char* key) {
  if (!json.is_object()) return {};
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}
const Json& Member(const Json& json, const char* key) {
  static const Json kNothing;
  if (!json.is_object()) return kNothing;
  const auto found = json.find(key);
  return found == json.end() ? kNothing : *found;
}

// "sha256:HEX" -> HEX.
Result<std::string> Digest(const std::string& digest) {
  const bool known = digest.starts_with("sha256:");
  if (known && ObjectId::FromHex(digest.substr(7))) return digest.substr(7);
  if (digest.find("..") != std::string::npos || digest.find('/') != std::string::npos || known) {
    return Fail(EINVAL, "the image has a digest that is none: {}", digest.substr(0, 100));
  }
  return Fail(EINVAL, "a digest of another kind than sha256: {}", digest.substr(0, 100));
}

// An architecture in libguestfs's words.
std::string ArchitectureName(const std::string& go) {
  static const std::map<std::string, std::string> kNames = {{"amd64", "x86_64"}, {"386", "i386"}, {"arm64", "aarch64"}};
  const auto found = kNames.find(go);
  return go.empty() ? "unknown" : found == kNames.end() ? go : found->second;
}

struct Platform {
  std::string os, arch, variant;
  std::string ToString() const {
    return (os.empty() ? "unknown" : os) + "/" + (arch.empty() ? "unknown" : arch) +
           (variant.empty() ? "" : "/" + variant);
  }
  bool Fits(const Platform& wanted) const {
    return os == wanted.os && arch == wanted.arch && (wanted.variant.empty() || variant == wanted.variant);
  }
  static Platform Of(const Json& json) {
    return {Text(json, "os"), Text(json, "architecture"), Text(json, "variant")};
  }
};

Platform HostPlatform() {
  utsname host;
  const std::string machine = uname(&host) == 0 ? host.machine : "";
  static const std::map<std::string, std::string> kNames = {
      {"x86_64", "amd64"}, {"i686", "386"}, {"aarch64", "arm64"}, {"armv7l", "arm"}, {"armv6l", "arm"}};
  const auto found = kNames.find(machine);
  return {"linux", found == kNames.end() ? machine : found->second, ""};
}

Result<std::optional<Platform>> ParsePlatform(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const size_t first = text.find('/');
  if (first == 0 || first == std::string::npos || first + 1 == text.size()) {
    return Fail(EINVAL, "platform {}: write OS/ARCH[/VARIANT], as in linux/arm64", text);
  }
  const size_t second = text.find('/', first + 1);
  Platform platform{text.substr(0, first), text.substr(first + 1, second - std::min(first + 1, second)), ""};
  if (second != std::string::npos) platform.variant = text.substr(second + 1);
  return platform;
}

std::string List(const std::set<std::string>& words) {
  std::string out;
  size_t count = 0;
  for (const std::string& word : words) {
    if (++count > kMaxListed) return out + fmt::format(" and {} more", words.size() - kMaxListed);
    out += (out.empty() ? "" : ", ") + word.substr(0, 200);
  }
  return out;
}

// Names that mean the same to the user.
bool SameName(std::string_view name, std::string_view wanted) {
  for (const std::string_view prefix : {"", "docker.io/", "docker.io/library/"}) {
    if (name.starts_with(prefix) && name.substr(prefix.size()) == wanted) return true;
  }
  return false;
}

std::string OneLine(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\t' || c == '\r'; }, ' ');
  if (text.size() > kMaxMessage) text = text.substr(0, kMaxMessage) + "...";
  return text;
}

class Choosing {
 public:
  Choosing(const ContainerFiles& files, const ContainerChoice& choice) : files_(files), choice_(choice) {}

  Result<ContainerImage> Run() {
    ASSIGN_OR_RETURN(platform_, ParsePlatform(choice_.platform));
    const bool docker = choice_.format == "docker" || (choice_.format.empty() && !files_.Has("oci-layout"));
    return docker ? ChooseDocker() : ChooseOci();
  }

 private:
  struct Candidate {
    std::string digest, name;
    Platform platform;
    bool platform_known = false;
  };

  Result<Json> ReadBlob(const std::string& digest) {
    ASSIGN_OR_RETURN(const std::string hex, Digest(digest));
    ASSIGN_OR_RETURN(const std::string text, files_.ReadWhole("blobs/sha256/" + hex, kMaxDocumentBytes));
    document_bytes_ += text.size();
    if (document_bytes_ > kMaxDocumentsBytes) {
      return Fail(E2BIG, "its documents have more than {} bytes", kMaxDocumentsBytes);
    }
    if (HashBytes(text).Hex() != hex) return Fail(EIO, "blob {} is damaged: its bytes have another digest", digest);
    return Parse(text, digest);
  }

  // Descends into indexes of indexes; what is an attestation or another platform's annotation is no image.
  Status Collect(const Json& index, const std::string& name, int depth) {
    const Json& manifests = Member(index, "manifests");
    if (!manifests.is_array() || depth > kMaxIndexDepth) return Fail(EINVAL, "the image's index is damaged");
    for (const Json& descriptor : manifests) {
      const Json& annotations = Member(descriptor, "annotations");
      if (!Text(annotations, "vnd.docker.reference.type").empty()) continue;
      Candidate candidate{Text(descriptor, "digest"), name, Platform::Of(Member(descriptor, "platform")), false};
      candidate.platform_known = Member(descriptor, "platform").is_object();
      std::string own = Text(annotations, "io.containerd.image.name");
      if (own.empty()) own = Text(annotations, "org.opencontainers.image.ref.name");
      if (own.size() > kMaxNameLength) return Fail(EINVAL, "an image with a name of {} bytes", own.size());
      if (!own.empty()) candidate.name = own;
      ASSIGN_OR_RETURN(const std::string hex, Digest(candidate.digest));
      const bool there = files_.Has("blobs/sha256/" + hex);
      if (!there) {
        if (missing_.empty()) missing_ = candidate.digest;
        continue;  // `docker save` keeps the index of all platforms, and the blobs of one
      }
      ASSIGN_OR_RETURN(const Json document, ReadBlob(candidate.digest));
      if (++documents_ > kMaxLayers) return Fail(E2BIG, "more than {} images", kMaxLayers);
      if (document.contains("manifests")) {
        // A digest of an index means what is in it.
        const bool named = candidate.digest == choice_.image;
        TRY(Collect(document, named ? choice_.image : candidate.name, depth + 1));
      } else {
        candidates_.push_back(std::move(candidate));
      }
    }
    return {};
  }

  Result<ContainerImage> ChooseOci() {
    ASSIGN_OR_RETURN(const std::string text, files_.ReadWhole("index.json", kMaxDocumentBytes));
    ASSIGN_OR_RETURN(const Json index, Parse(text, "index.json"));
    TRY(Collect(index, "", 0));
    if (candidates_.empty() && !missing_.empty()) {
      return Fail(ENOENT, "the image has no blob {}, which its index names", missing_);
    }
    if (candidates_.empty()) return Fail(EINVAL, "no image is in it");
    std::set<std::string> names;
    for (const Candidate& candidate : candidates_) {
      names.insert(candidate.name.empty() ? candidate.digest : candidate.name);
    }
    if (!choice_.image.empty()) {
      std::erase_if(candidates_, [&](const Candidate& candidate) {
        return !SameName(candidate.name, choice_.image) && candidate.digest != choice_.image;
      });
      if (candidates_.empty()) return Fail(EINVAL, "no image {} is in it; there are: {}", choice_.image, List(names));
    } else {
      // One name with several platforms is one image, and so are several without names that differ in platform.
      std::set<std::string> given, platforms;
      for (const Candidate& candidate : candidates_) {
        given.insert(candidate.name);
        if (candidate.platform_known) platforms.insert(candidate.platform.ToString());
      }
      const bool unnamed = given.size() == 1 && given.begin()->empty();
      if (given.size() > 1 || (unnamed && candidates_.size() > 1 && platforms.size() < candidates_.size())) {
        return Fail(EINVAL, "several images are in it; choose by --image: {}", List(names));
      }
    }
    ASSIGN_OR_RETURN(const Candidate chosen, ChoosePlatform());
    ASSIGN_OR_RETURN(const Json manifest, ReadBlob(chosen.digest));
    return Describe(manifest, chosen);
  }

  Result<Candidate> ChoosePlatform() {
    std::set<std::string> there;
    for (Candidate& candidate : candidates_) {
      if (!candidate.platform_known) {  // its configuration says
        ASSIGN_OR_RETURN(const Json manifest, ReadBlob(candidate.digest));
        const std::string config = Text(Member(manifest, "config"), "digest");
        ASSIGN_OR_RETURN(const Json document, ReadBlob(config));
        candidate.platform = Platform::Of(document);
      }
      there.insert(candidate.platform.ToString());
    }
    if (candidates_.size() == 1 && !platform_) return candidates_.front();
    const Platform wanted = platform_.value_or(HostPlatform());
    std::vector<Candidate> fitting;
    for (const Candidate& candidate : candidates_) {
      if (candidate.platform.Fits(wanted)) fitting.push_back(candidate);
    }
    if (fitting.empty()) {
      return Fail(EINVAL, "no image for {} is in it; choose by --platform: {}", wanted.ToString(), List(there));
    }
    if (fitting.size() > 1) {
      std::set<std::string> several;
      for (const Candidate& candidate : fitting) several.insert(candidate.platform.ToString());
      if (several.size() == 1) return fitting.front();
      return Fail(EINVAL, "several images for {} are in it; choose by --platform: {}", wanted.ToString(),
                  List(several));
    }
    return fitting.front();
  }

  Result<ContainerImage> Describe(const Json& manifest, const Candidate& chosen) {
    const Json& layers = Member(manifest, "layers");
    const std::string config_type = Text(Member(manifest, "config"), "mediaType");
    const bool runs = config_type == "application/vnd.oci.image.config.v1+json" ||
                      config_type == "application/vnd.docker.container.image.v1+json";
    if (!layers.is_array() || !runs) {
      return Fail(EINVAL, "{} is no image of files, but of type {}", chosen.digest,
                  config_type.empty() ? Text(manifest, "mediaType") : config_type);
    }
    ASSIGN_OR_RETURN(const Json config, ReadBlob(Text(Member(manifest, "config"), "digest")));
    ContainerImage image;
    image.name = OneLine(chosen.name);
    for (const Json& descriptor : layers) {
      ContainerLayer layer;
      layer.name = Text(descriptor, "digest");
      ASSIGN_OR_RETURN(layer.digest, Digest(layer.name));
      const std::string type = Text(descriptor, "mediaType");
      if (type.ends_with("+encrypted")) return Fail(EINVAL, "layer {} is encrypted", layer.name);
      auto bytes = files_.Find("blobs/sha256/" + layer.digest);
      if (!bytes) return Fail(ENOENT, "layer {} ({}) is not in the image", layer.name, type);
      layer.bytes = std::move(*bytes);
      image.layers.push_back(std::move(layer));
    }
    TRY(Complete(config, image));
    return image;
  }

  Result<ContainerImage> ChooseDocker() {
    ASSIGN_OR_RETURN(const std::string text, files_.ReadWhole("manifest.json", kMaxDocumentBytes));
    ASSIGN_OR_RETURN(const Json manifest, Parse(text, "manifest.json"));
    if (!manifest.is_array()) return Fail(EINVAL, "manifest.json is not that of a docker-save archive");
    std::set<std::string> names;
    std::vector<const Json*> found;
    std::string chosen;
    for (const Json& image : manifest) {
      std::set<std::string> own;
      if (const Json& tags = Member(image, "RepoTags"); tags.is_array()) {
        for (const Json& tag : tags) {
          if (tag.is_string()) own.insert(tag.get<std::string>());
        }
      }
      const std::string config = Text(image, "Config");
      bool wanted = choice_.image.empty() || config.find(choice_.image) != std::string::npos;
      for (const std::string& tag : own) wanted = wanted || SameName(tag, choice_.image);
      if (wanted) found.push_back(&image);
      if (wanted) chosen = own.empty() ? config : *own.begin();
      if (own.empty()) own.insert(config);
      for (const std::string& name : own) {
        if (name.size() > kMaxNameLength) return Fail(EINVAL, "an image with a name of {} bytes", name.size());
      }
      names.insert(own.begin(), own.end());
    }
    if (found.empty() && choice_.image.empty()) return Fail(EINVAL, "no image is in it");
    if (found.empty()) return Fail(EINVAL, "no image {} is in it; there are: {}", choice_.image, List(names));
    if (found.size() > 1) return Fail(EINVAL, "several images are in it; choose by --image: {}", List(names));
    return DescribeDocker(*found.front(), chosen);
  }

  // The digest that a name in the archive is made of: "HEX.json", "blobs/sha256/HEX". Empty: none. (A directory of the
  // old form, "HEX/layer.tar", is named after something else.)
  static std::string DigestInName(std::string name) {
    if (name.starts_with("blobs/sha256/")) name.erase(0, 13);
    if (name.starts_with("sha256:")) name.erase(0, 7);
    if (name.ends_with(".json")) name.resize(name.size() - 5);
    return ObjectId::FromHex(name) ? name : "";
  }

  Result<ContainerImage> DescribeDocker(const Json& entry, const std::string& name) {
    const std::string config_name = Text(entry, "Config");
    ASSIGN_OR_RETURN(const std::string text, files_.ReadWhole(config_name, kMaxDocumentBytes));
    const std::string digest = DigestInName(config_name);
    if (!digest.empty() && HashBytes(text).Hex() != digest) {
      return Fail(EIO, "{} is damaged: its bytes have another digest", config_name);
    }
    ASSIGN_OR_RETURN(const Json config, Parse(text, config_name));
    if (const Platform own = Platform::Of(config); platform_ && !own.Fits(*platform_)) {
      return Fail(EINVAL, "the image is for {}, not {}", own.ToString(), platform_->ToString());
    }
    ContainerImage image;
    image.name = OneLine(name);
    const Json& layers = Member(entry, "Layers");
    if (!layers.is_array()) return Fail(EINVAL, "manifest.json names no layers");
    for (const Json& item : layers) {
      ContainerLayer layer;
      if (!item.is_string()) return Fail(EINVAL, "manifest.json names no layers");
      layer.name = item.get<std::string>();
      if (layer.name.size() > kMaxNameLength) return Fail(EINVAL, "a layer with a name of {} bytes", layer.name.size());
      layer.digest = DigestInName(layer.name);
      ASSIGN_OR_RETURN(layer.bytes, files_.Find(layer.name));
      image.layers.push_back(std::move(layer));
    }
    TRY(Complete(config, image));
    return image;
  }

  // What the configuration says of the whole and of each layer.
  Status Complete(const Json& config, ContainerImage& image) const {
    if (image.layers.empty()) return Fail(EINVAL, "the image has no layers, and so no files");
    if (image.layers.size() > kMaxLayers) return Fail(E2BIG, "an image of {} layers", image.layers.size());
    const Json& diff_ids = Member(Member(config, "rootfs"), "diff_ids");
    if (!diff_ids.is_array() || diff_ids.size() != image.layers.size()) {
      return Fail(EINVAL, "the image's configuration speaks of other layers than its manifest");
    }
    for (size_t i = 0; i < diff_ids.size(); ++i) {
      if (!diff_ids[i].is_string()) return Fail(EINVAL, "the image's configuration is damaged");
      ASSIGN_OR_RETURN(image.layers[i].diff_id, Digest(diff_ids[i].get<std::string>()));
    }
    std::vector<std::string> messages;
    if (const Json& history = Member(config, "history"); history.is_array()) {
      for (const Json& item : history) {
        if (const Json& empty = Member(item, "empty_layer"); empty.is_boolean() && empty.get<bool>()) continue;
        const std::string by = Text(item, "created_by"), comment = Text(item, "comment");
        messages.push_back(OneLine(by.empty() ? comment : by));
      }
    }
    for (size_t i = 0; i < image.layers.size(); ++i) {
      std::string& message = image.layers[i].message;
      if (messages.size() == image.layers.size()) message = messages[i];
      if (message.empty()) message = fmt::format("layer {} of {}", i + 1, image.layers.size());
    }
    image.os = Text(config, "os");
    if (image.os.empty()) image.os = "unknown";
    image.arch = ArchitectureName(Text(config, "architecture"));
    if (const Json& run = Member(config, "config"); run.is_object()) {
      image.config = run.dump(-1, ' ', false, Json::error_handler_t::replace);
      if (image.config.size() > kMaxConfigBytes) image.config.clear();
    }
    return {};
  }

  const ContainerFiles& files_;
  const ContainerChoice& choice_;
  std::optional<Platform> platform_;
  std::vector<Candidate> candidates_;
  std::string missing_;
  size_t documents_ = 0;
  uint64_t document_bytes_ = 0;
};

}  // namespace

Result<ContainerImage> ChooseContainerImage(const ContainerFiles& files, const ContainerChoice& choice) {
  return Choosing(files, choice).Run();
}

}  // namespace mirage
