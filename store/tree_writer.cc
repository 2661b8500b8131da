#include "store/tree_writer.h"

#include <algorithm>
#include <limits>

namespace mirage {
namespace {

// An entry's encoding, if a reader will take it.
Result<std::string> EncodeChecked(const Entry& entry) {
  std::string bytes = EncodeEntry(entry);
  auto decoded = DecodeEntry(bytes);
  if (!decoded) return Fail(EINVAL, "{}", decoded.error().message);
  if (*decoded != entry) return Fail(EINVAL, "entry: has members that its type has not");
  return bytes;
}

uint64_t AddSaturated(uint64_t a, uint64_t b) {
  return a > std::numeric_limits<uint64_t>::max() - b ? std::numeric_limits<uint64_t>::max() : a + b;
}

}  // namespace

struct TreeWriter::Impl {
  struct Directory {
    std::string name;
    size_t path_bytes;  // of its own path, a prefix of `path`
    Entry entry;
    std::unique_ptr<MapBuilder> builder;
  };

  ObjectWriter& writer;
  std::vector<Directory> open;  // the root first
  std::string path;             // of the innermost open directory
  Entry root;
  bool has_root = false, finished = false;
  uint64_t file_count = 0, total_bytes = 0;

  void Open(std::string_view name, std::string_view full_path, Entry entry) {
    path = full_path;
    open.push_back({std::string(name), full_path.size(), std::move(entry),
                    std::make_unique<MapBuilder>(writer, ObjectKind::kTree)});
  }

  Status Close() {
    Directory closed = std::move(open.back());
    open.pop_back();
    ASSIGN_OR_RETURN(closed.entry.id, closed.builder->Finish());
    ASSIGN_OR_RETURN(const std::string bytes, EncodeChecked(closed.entry));
    if (open.empty()) {
      root = std::move(closed.entry);
      return {};
    }
    path.resize(open.back().path_bytes);
    ++open.back().entry.size;
    return open.back().builder->Add(closed.name, bytes);
  }

  Status Add(std::string_view full_path, Entry entry) {
    if (finished) return Fail(EINVAL, "an entry behind the end of the tree");
    if (full_path.size() > kMaxPathBytes) return Fail(ENAMETOOLONG, "its path has {} bytes", full_path.size());
    if (entry.is_directory()) {
      if (!entry.id.IsZero() || entry.size != 0) return Fail(EINVAL, "a directory that has its id already");
      entry.id = kEmptyContentId;  // any id, for the check alone
      TRY(EncodeChecked(entry));
    }
    if (full_path.empty()) {
      if (has_root) return Fail(EINVAL, "the root comes twice");
      if (!entry.is_directory()) return Fail(EINVAL, "the root must be a directory");
      has_root = true;
      Open("", "", std::move(entry));
      return {};
    }
    if (!has_root) return Fail(EINVAL, "the root must come first");
    const size_t slash = full_path.rfind('/');
    const std::string_view parent = slash == std::string_view::npos ? std::string_view() : full_path.substr(0, slash);
    const std::string_view name = slash == std::string_view::npos ? full_path : full_path.substr(slash + 1);
    if (name.empty() || name == "." || name == ".." || name.size() > kMaxNameBytes ||
        name.find('\0') != std::string_view::npos) {
      return Fail(EINVAL, "not a possible name");
    }
    // A directory stays open while what comes is in it. The root stays: a missing parent is not made up.
    while (path != parent) {
      if (open.size() == 1) return Fail(EINVAL, "its directory is missing, or closed already");
      TRY(Close());
    }
    ++file_count;
    if (entry.is_directory()) {
      Open(name, full_path, std::move(entry));
      return {};
    }
    if (entry.type == FileType::kRegular) total_bytes = AddSaturated(total_bytes, entry.size);
    ASSIGN_OR_RETURN(const std::string bytes, EncodeChecked(entry));
    return open.back().builder->Add(name, bytes);
  }
};

TreeWriter::TreeWriter(ObjectWriter& writer) : impl_(new Impl{.writer = writer, .open = {}, .path = {}, .root = {}}) {}
TreeWriter::~TreeWriter() = default;
uint64_t TreeWriter::file_count() const { return impl_->file_count; }
uint64_t TreeWriter::total_bytes() const { return impl_->total_bytes; }

Status TreeWriter::Add(std::string_view path, Entry entry) {
  auto status = impl_->Add(path, std::move(entry));
  if (!status) return Annotate(std::move(status).error(), "/" + std::string(path));
  return status;
}

Result<Entry> TreeWriter::Finish() {
  if (!impl_->has_root || impl_->finished) return Fail(EINVAL, "a tree without a root, or finished twice");
  impl_->finished = true;
  while (!impl_->open.empty()) TRY(impl_->Close());
  return impl_->root;
}

Result<ObjectId> WriteLinks(ObjectWriter& writer, std::vector<std::vector<std::string>> groups) {
  std::vector<std::pair<std::string, size_t>> members;  // path, its group
  std::vector<std::string> firsts;
  for (std::vector<std::string>& group : groups) {
    if (group.size() < 2) return Fail(EINVAL, "a hard-link group of {}", group.size());
    firsts.push_back(*std::min_element(group.begin(), group.end()));
    for (std::string& path : group) members.emplace_back(std::move(path), firsts.size() - 1);
  }
  if (members.empty()) return ObjectId{};
  std::sort(members.begin(), members.end());
  MapBuilder builder(writer, ObjectKind::kLinks);
  for (const auto& [path, group] : members) TRY(builder.Add(path, firsts[group]));
  return builder.Finish();
}

Result<EditedTree> EditTree(ObjectWriter& writer, const MapReader& trees, const ObjectId& base,
                            uint64_t base_subdirectories, const std::vector<TreeEdit>& edits) {
  // All pairs go through a builder: its cuts depend on the names alone, so nodes without an edit come out as they were,
  // and the writer knows them. Reading is a fraction of what hashing one changed file costs.
  MapBuilder builder(writer, ObjectKind::kTree);
  uint64_t added = 0, removed = 0;
  size_t next = 0;
  Status status;
  const auto add_edit = [&](const TreeEdit& edit) -> Status {
    if (!edit.entry) return {};
    if (edit.entry->is_directory()) ++added;
    ASSIGN_OR_RETURN(const std::string bytes, EncodeChecked(*edit.entry));
    return builder.Add(edit.name, bytes);
  };
  const auto add_kept = [&](std::string_view name, std::string_view value) -> Status {
    for (; next < edits.size() && edits[next].name < name; ++next) TRY(add_edit(edits[next]));
    if (next == edits.size() || edits[next].name != name) return builder.Add(name, value);
    ASSIGN_OR_RETURN(const Entry replaced, DecodeEntry(value));
    if (replaced.is_directory()) ++removed;
    return add_edit(edits[next++]);
  };
  TRY(trees.Scan(base, "", [&](std::string_view name, std::string_view value) {
    status = add_kept(name, value);
    return status.has_value();
  }));
  TRY(std::move(status));
  for (; next < edits.size(); ++next) TRY(add_edit(edits[next]));
  if (removed > base_subdirectories) {
    return Fail(EINVAL, "tree {}: has more than {} subdirectories", base.Hex(), base_subdirectories);
  }
  EditedTree edited;
  ASSIGN_OR_RETURN(edited.id, builder.Finish());
  edited.subdirectories = base_subdirectories - removed + added;
  return edited;
}

}  // namespace mirage
