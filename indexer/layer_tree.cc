#include "indexer/layer_tree.h"

#include <algorithm>
#include <tuple>
#include <unordered_set>

namespace mirage {
namespace {

constexpr std::string_view kWhiteout = ".wh.", kMeta = ".wh..wh.", kOpaque = ".wh..wh..opq";
constexpr int kMaxLinks = 40;  // as the kernel follows
constexpr int kMaxSteps = 1 << 15;  // names on the way to a member, those in links counted: what a path can have

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

LayerTree::LayerTree(uint64_t name_bytes) : memory_(name_bytes) { nodes_.emplace("", Node{}); }

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
  for (int steps = 0; !left.empty(); ++steps) {
    if (steps > kMaxSteps) return Fail(EINVAL, "/{}: too long a way", path);
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
      TRY(Spend(next));
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

// From the last to the first, so that a directory comes behind all in it.
void LayerTree::Hide(const std::string& path, bool itself) {
  last_known_ = false;
  // What this layer has keeps its directories, which are then its own.
  const auto hide = [&](Nodes::iterator node) {
    if (node->second.placed == current()) return node;
    const std::string prefix = node->first + "/";
    const auto below = nodes_.lower_bound(prefix);
    if (below == nodes_.end() || !below->first.starts_with(prefix)) return nodes_.erase(node);
    node->second = Node{current(), current(), kMade, FileType::kDirectory, {}};
    return node;
  };
  const std::string first = path.empty() ? std::string(1, '\0') : path + "/";
  auto at = path.empty() ? nodes_.end() : nodes_.lower_bound(path + static_cast<char>('/' + 1));
  while (at != nodes_.begin() && std::prev(at)->first >= first) at = hide(std::prev(at));
  if (const auto own = nodes_.find(path); itself && own != nodes_.end()) hide(own);
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
  if (found == nodes_.end()) TRY(Spend(path));
  TRY(memory_.Spend(node.target.size()));
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
      TRY(Spend(path));
      opaque_.emplace_back(ParentOf(path));
      return {};
    }
    if (name.starts_with(kMeta)) return {};  // aufs's own
    const std::string_view hidden = name.substr(kWhiteout.size());
    if (!last || hidden.empty() || hidden == "." || hidden == "..") {
      return Fail(EIO, "a layer has /{}, which hides nothing that can be", path);
    }
    TRY(Spend(path));
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
    if (member.target.size() > kMaxSymlinkBytes) {
      return Fail(EINVAL, "/{}: a symbolic link of {} bytes", path, member.target.size());
    }
    node.target = member.target;
  }
  ASSIGN_OR_RETURN(const std::string directory, Resolve(ParentOf(path), true));
  return Place(Join(directory, NameOf(path)), std::move(node));
}

Status LayerTree::End() {
  std::unordered_set<std::string> hidden;  // each is gone through once
  for (const bool opaque : {false, true}) {
    for (const std::string& path : opaque ? opaque_ : whiteouts_) {
      const auto directory = Resolve(opaque ? std::string_view(path) : ParentOf(path), false);
      if (!directory) continue;  // what is not there needs no hiding
      const std::string meant = opaque ? *directory : Join(*directory, NameOf(path));
      if (!hidden.insert(opaque ? meant + "/" : meant).second) continue;
      Hide(meant, !opaque);
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
