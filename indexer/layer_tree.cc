#include "indexer/layer_tree.h"

#include <algorithm>
#include <tuple>

namespace mirage {
namespace {

constexpr std::string_view kWhiteout = ".wh.", kMeta = ".wh..wh.", kOpaque = ".wh..wh..opq";
constexpr int kMaxLinks = 40;  // as the kernel follows

std::string_view ParentOf(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view{} : path.substr(0, slash);
}
std::string_view NameOf(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string Join(std::string_view directory, std::string_view name) {
  return directory.empty() ? std::string(name) : fmt::format("{}/{}", directory, name);
}

// Components, the last first.
void PushReversed(std::string_view path, std::vector<std::string>& stack) {
  const size_t begin = stack.size();
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    if (end > start) stack.emplace_back(path.substr(start, end - start));
    start = end + 1;
  }
  std::reverse(stack.begin() + static_cast<ptrdiff_t>(begin), stack.end());
}

}  // namespace

LayerTree::LayerTree() { nodes_.emplace("", Node{}); }

void LayerTree::Begin() {
  ++layers_;
  ordinal_ = 0;
  last_known_ = false;
}

Result<std::string> LayerTree::Resolve(std::string_view path, bool make) {
  if (last_known_ && path == last_path_) return last_resolved_;
  std::vector<std::string> left;
  PushReversed(path, left);
  std::string at;
  int links = 0;
  while (!left.empty()) {
    const std::string name = std::move(left.back());
    left.pop_back();
    if (name == ".") continue;
    if (name == "..") {
      at = ParentOf(at);
      continue;
    }
    std::string next = Join(at, name);
    if (next.size() > kMaxPathBytes) return Fail(EINVAL, "/{} leads to a path that is too long", path);
    const auto found = nodes_.find(next);
    if (found == nodes_.end()) {
      if (!make) return Fail(ENOENT, "/{} is not there", next);
      nodes_.emplace(next, Node{current(), current(), kMade, FileType::kDirectory, {}});
    } else if (found->second.type == FileType::kSymlink) {
      if (++links > kMaxLinks) return Fail(ELOOP, "/{}: too many symbolic links on the way", path);
      if (found->second.target.starts_with('/')) at.clear();
      PushReversed(found->second.target, left);
      continue;
    } else if (found->second.type != FileType::kDirectory) {
      return Fail(EINVAL, "/{} is below /{}, which is no directory", path, next);
    }
    at = std::move(next);
  }
  last_path_ = path;
  last_resolved_ = at;
  last_known_ = true;
  return at;
}

void LayerTree::Hide(const std::string& path, bool itself) {
  last_known_ = false;
  std::vector<std::string> kept;
  auto at = path.empty() ? std::next(nodes_.begin()) : nodes_.lower_bound(path + "/");
  const auto end = path.empty() ? nodes_.end() : nodes_.lower_bound(path + static_cast<char>('/' + 1));
  while (at != end) {
    if (at->second.placed < current()) {
      at = nodes_.erase(at);
    } else {
      kept.push_back(at->first);
      ++at;
    }
  }
  if (const auto own = nodes_.find(path); itself && own != nodes_.end() && own->second.placed < current()) {
    nodes_.erase(own);
  }
  // What this layer has keeps its directories, which are then its own.
  for (const std::string& name : kept) {
    for (std::string_view parent = ParentOf(name); !nodes_.contains(parent); parent = ParentOf(parent)) {
      nodes_.emplace(parent, Node{current(), current(), kMade, FileType::kDirectory, {}});
    }
  }
}

Status LayerTree::Place(const std::string& path, Node node) {
  const bool directory = node.type == FileType::kDirectory;
  auto found = nodes_.find(path);
  if (found != nodes_.end() && (found->second.type == FileType::kDirectory) != directory) {
    if (!directory) Hide(path, true);
    found = nodes_.find(path);
    if (found != nodes_.end() && found->second.placed == current()) {
      return Fail(EINVAL, "/{} comes twice in a layer, once as a directory and once not", path);
    }
    last_known_ = false;
  }
  if (!directory) last_known_ = false;
  nodes_[path] = std::move(node);
  return {};
}

Status LayerTree::Take(const TarMember& member) {
  Node node{current(), current(), ordinal_++, member.entry.type, {}};
  const std::string& path = member.path;
  if (path.empty()) {
    if (member.hard_link || !member.entry.is_directory()) return Fail(EIO, "a layer has a member without a name");
    return Place("", std::move(node));
  }
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view name = std::string_view(path).substr(start, end - start);
    start = end + 1;
    const bool last = end == path.size();
    if (!name.starts_with(kWhiteout)) continue;
    if (last && name == kOpaque) {
      opaque_.emplace_back(ParentOf(path));
      return {};
    }
    if (name.starts_with(kMeta)) return {};  // aufs's own
    const std::string_view hidden = name.substr(kWhiteout.size());
    if (!last || hidden.empty() || hidden == "." || hidden == "..") {
      return Fail(EIO, "a layer has /{}, which hides nothing that can be", path);
    }
    whiteouts_.push_back(Join(ParentOf(path), hidden));
    return {};
  }
  if (member.hard_link) {
    ASSIGN_OR_RETURN(const std::string directory, Resolve(ParentOf(member.target), true));
    const std::string target = Join(directory, NameOf(member.target));
    const auto found = nodes_.find(target);
    if (found == nodes_.end() || found->second.type == FileType::kDirectory) {
      return Fail(EINVAL, "/{} is a hard link to /{}, which is not there", path, member.target);
    }
    node = found->second;
    node.placed = current();
  } else if (node.type == FileType::kSymlink) {
    node.target = member.target;
  }
  ASSIGN_OR_RETURN(const std::string directory, Resolve(ParentOf(path), true));
  return Place(Join(directory, NameOf(path)), std::move(node));
}

Status LayerTree::End() {
  for (const bool opaque : {false, true}) {
    for (const std::string& path : opaque ? opaque_ : whiteouts_) {
      const auto directory = Resolve(opaque ? std::string_view(path) : ParentOf(path), false);
      if (!directory) continue;  // what is not there needs no hiding
      Hide(opaque ? *directory : Join(*directory, NameOf(path)), !opaque);
    }
  }
  whiteouts_.clear();
  opaque_.clear();
  return {};
}

std::vector<LayerFile> LayerTree::Files() const {
  std::vector<std::tuple<uint32_t, uint64_t, const std::string*>> all;
  all.reserve(nodes_.size());
  for (const auto& [path, node] : nodes_) {
    if (node.ordinal != kMade) all.emplace_back(node.layer, node.ordinal, &path);
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::tie(std::get<0>(a), std::get<1>(a)) < std::tie(std::get<0>(b), std::get<1>(b));
  });
  std::vector<LayerFile> files;
  for (const auto& [layer, ordinal, path] : all) {
    if (files.empty() || files.back().layer != layer || files.back().ordinal != ordinal) {
      files.push_back({layer, ordinal, {}});
    }
    files.back().paths.push_back(*path);
  }
  return files;
}

std::vector<std::string> LayerTree::MadeDirectories() const {
  std::vector<std::string> made;
  for (const auto& [path, node] : nodes_) {
    if (node.ordinal == kMade) made.push_back(path);
  }
  return made;
}

}  // namespace mirage
