// Opening, the node table, and the background thread. The rest: branch_nodes.cc, branch_namespace.cc, branch_io.cc.
#include "mirfs/branch_fs.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>

#include "store/encoding.h"

namespace mirage {
namespace {

constexpr uint64_t kUpperBit = uint64_t{1} << 63;
constexpr auto kHousekeepingPeriod = std::chrono::seconds(5);
constexpr size_t kManyRenamed = 64;  // a sync of the whole disk is the less

}  // namespace

BranchFs::Pin& BranchFs::Pin::operator=(Pin&& other) noexcept {
  if (this != &other) {
    Drop();
    fs_ = other.fs_;
    node_ = std::move(other.node_);
  }
  return *this;
}

void BranchFs::Pin::Drop() {
  if (!node_) return;
  fs_->Unpin(*node_);
  node_.reset();
}

BranchFs::NodeLocks::NodeLocks(std::vector<Node*> nodes) {
  std::erase(nodes, nullptr);
  std::sort(nodes.begin(), nodes.end(), [](const Node* a, const Node* b) { return a->id < b->id; });
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  for (Node* node : nodes) locks_.emplace_back(node->mutex);
}

void BranchFs::Stamps::Restore() const {
  node.record.mtime = mtime;
  node.record.ctime = ctime;
  node.record.nlink = nlink;
}

BranchFs::BranchFs(std::shared_ptr<Library> library, Overlay& overlay)
    : library_(library), overlay_(overlay), db_(overlay.db()), data_(overlay.data()), trees_(std::move(library)) {
  const OverlayInfo& info = overlay.info();
  name_ = fmt::format("library {}, branch {}, overlay {}", library_->path(), info.branch, info.id);
  base_name_ = info.base_tag.empty() ? info.base.Hex() : info.branch + "/" + info.base_tag;
}

Result<std::unique_ptr<BranchFs>> BranchFs::Open(std::shared_ptr<Library> library, Overlay& overlay) {
  auto fs = std::unique_ptr<BranchFs>(new BranchFs(std::move(library), overlay));
  TRY(fs->Start());
  return fs;
}

BranchFs::~BranchFs() { static_cast<void>(Close()); }

Status BranchFs::Start() {
  const std::string& uuid = library_->format().uuid;
  seed_ = XXH3_64bits(uuid.data(), uuid.size());
  ASSIGN_OR_RETURN(const auto base, ReadManifest(library_->objects(), overlay_.info().base));
  if (!base.links.IsZero()) {
    ASSIGN_OR_RETURN(const auto groups, trees_.LinkGroups(base.links));
    for (const auto& [first, members] : groups) {
      for (const auto& member : members) groups_[member] = {first, static_cast<uint32_t>(members.size())};
    }
  }
  ASSIGN_OR_RETURN(const uint64_t next, db_.NextInode());
  next_inode_ = reserved_inode_ = next != 0 ? next : kUpperBit | 1;

  auto root = std::make_shared<Node>(kRootNode);
  ASSIGN_OR_RETURN(auto record, db_.Inode(kRootNode));
  root->stored = record.has_value();
  root->record = record ? std::move(*record) : RecordOfLower(base.root, "", static_cast<uint32_t>(2 + base.root.size));
  root->parent = kRootNode;
  root->lookups = 1;  // the kernel holds the root without asking
  nodes_[kRootNode] = std::move(root);

  TRY(RemoveOrphans());
  TRY(RemoveUnnamedFiles());
  GiveReserve();  // of a daemon before
  db_.OnFullDisk([this] { GiveReserve(); });
  db_.BeforeSync([this] { return SyncRenamed(); });
  background_ = std::thread([this] { BackgroundLoop(); });
  return {};
}

Status BranchFs::RemoveOrphans() {
  std::vector<NodeId> orphans;
  TRY(db_.VisitOrphans([&](uint64_t inode) {
    orphans.push_back(inode);
    return true;
  }));
  for (const NodeId inode : orphans) {
    ASSIGN_OR_RETURN(const auto record, db_.Inode(inode));
    OverlayDb::Batch batch;
    if (record && record->lower) db_.DeleteBlocks(inode, &batch);
    batch.DeleteInode(inode);
    batch.DeleteOrphan(inode);
    TRY(db_.Write(batch));
  }
  if (orphans.empty()) return {};
  TRY(db_.Sync());
  for (const NodeId inode : orphans) data_.Remove(inode);
  return {};
}

// Data files whose record never came, or went: nobody can name them any more. A crash leaves them.
Status BranchFs::RemoveUnnamedFiles() {
  return data_.Visit([this](NodeId inode) -> Status {
    ASSIGN_OR_RETURN(const auto record, db_.Inode(inode));
    if (!record || !record->may_have_data) data_.Remove(inode);
    return {};
  });
}

NodeId BranchFs::LowerId(std::string_view origin) const {
  const NodeId id = XXH3_64bits_withSeed(origin.data(), origin.size(), seed_) & ~kUpperBit;
  return id > kRootNode ? id : id + 2;
}

const BranchFs::LinkGroup* BranchFs::GroupOf(const std::string& path) const {
  const auto found = groups_.find(path);
  return found == groups_.end() ? nullptr : &found->second;
}

Result<BranchFs::Pin> BranchFs::GetNode(NodeId id) {
  const std::lock_guard lock(table_mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return Fail(ESTALE, "inode {:#x}: not known", id);
  ++found->second->pins;
  return Pin(this, found->second);
}

Result<BranchFs::Pin> BranchFs::GetDirectory(NodeId id) {
  ASSIGN_OR_RETURN(auto node, GetNode(id));
  if (!node->record.is_directory()) return Fail(ENOTDIR, "inode {:#x}: not a directory", id);
  return node;
}

Result<BranchFs::Pin> BranchFs::NodeOfChild(NodeId id) {
  // The record is read under the table's lock: what is in the table is never older than the database.
  const std::lock_guard lock(table_mutex_);
  auto& slot = nodes_[id];
  if (!slot) {
    auto record = db_.Inode(id);
    if (!record || !*record) {
      nodes_.erase(id);
      if (!record) return tl::make_unexpected(std::move(record).error());
      return Fail(EIO, "overlay {}: inode {:#x} has no record", overlay_.info().id, id);
    }
    slot = std::make_shared<Node>(id);
    slot->stored = true;
    slot->record = std::move(**record);
    slot->changed = db_.sequence();  // it may have been written and forgotten since the last sync
  }
  ++slot->pins;
  return Pin(this, slot);
}

Result<BranchFs::Pin> BranchFs::NodeOfLower(std::string path, const Entry& entry) {
  const LinkGroup* group = entry.is_directory() ? nullptr : GroupOf(path);
  const std::string& origin = group ? group->first : path;
  const std::lock_guard lock(table_mutex_);
  for (NodeId id = LowerId(origin);; id = (id + 1) & ~kUpperBit) {
    if (id <= kRootNode) continue;
    // An id that another object has is passed over.
    if (const auto found = nodes_.find(id); found != nodes_.end()) {
      if (found->second->record.origin != origin) continue;
      ++found->second->pins;
      return Pin(this, found->second);
    }
    ASSIGN_OR_RETURN(auto record, db_.Inode(id));
    if (record && record->origin != origin) continue;
    auto node = std::make_shared<Node>(id);
    node->stored = record.has_value();
    if (record) {
      node->record = std::move(*record);
      node->changed = db_.sequence();
    } else {
      const auto nlink = entry.is_directory() ? static_cast<uint32_t>(2 + entry.size) : group ? group->members : 1;
      node->record = RecordOfLower(entry, origin, nlink);
    }
    node->pins = 1;
    nodes_[id] = node;
    return Pin(this, std::move(node));
  }
}

Result<BranchFs::Pin> BranchFs::NodeOf(Node& directory, std::string_view name, const Found& found) {
  auto node = [&]() -> Result<Pin> {
    if (found.child) return NodeOfChild(*found.child);
    std::string path = directory.record.origin;
    if (!path.empty()) path += '/';
    path += name;
    return NodeOfLower(std::move(path), found.lower);
  }();
  if (node && (*node)->record.is_directory()) (*node)->parent = directory.id;
  return node;
}

void BranchFs::EraseIfUnused(Node& node) {
  if (node.lookups == 0 && node.handles == 0 && node.pins == 0) nodes_.erase(node.id);
}

void BranchFs::Unpin(Node& node) {
  const std::lock_guard lock(table_mutex_);
  --node.pins;
  EraseIfUnused(node);
}

void BranchFs::AddLookup(Node& node) {
  const std::lock_guard lock(table_mutex_);
  ++node.lookups;
}

void BranchFs::AddHandle(Node& node) {
  const std::lock_guard lock(table_mutex_);
  ++node.handles;
}

bool BranchFs::HasHandles(Node& node) {
  const std::lock_guard lock(table_mutex_);
  return node.handles > 0;
}

void BranchFs::Forget(NodeId id, uint64_t count) {
  if (id == kRootNode) return;
  const std::lock_guard lock(table_mutex_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return;
  const auto node = found->second;
  node->lookups -= std::min(node->lookups, count);
  EraseIfUnused(*node);
}

void BranchFs::MarkDirty(Node& node) {
  const std::lock_guard lock(table_mutex_);
  if (node.in_dirty_list) return;
  const auto found = nodes_.find(node.id);
  if (found == nodes_.end() || found->second.get() != &node) return;
  node.in_dirty_list = true;
  ++node.pins;
  dirty_.push_back(found->second);
}

void BranchFs::Discard(NodeId inode) {
  const std::lock_guard lock(table_mutex_);
  discarded_.push_back(inode);
}

Status BranchFs::WriteBeforeNames(Node& node) {
  if (node.record.type != FileType::kRegular || !node.record.may_have_data) return {};
  ASSIGN_OR_RETURN(UpperFile * file, FileOf(node));
  TRY(file->BeginWriting());
  CloseIfIdle(node);
  ASSIGN_OR_RETURN(auto pin, GetNode(node.id));
  const std::lock_guard lock(renamed_mutex_);
  renamed_.try_emplace(node.id, std::move(pin));
  return {};
}

Status BranchFs::SyncRenamed() {
  std::map<NodeId, Pin> renamed;
  {
    const std::lock_guard lock(renamed_mutex_);
    renamed.swap(renamed_);
  }
  if (renamed.size() >= kManyRenamed) {
    auto synced = data_.SyncAll();
    if (synced) return synced;
    const std::lock_guard lock(renamed_mutex_);
    renamed_.merge(renamed);
    return synced;
  }
  Status result;
  for (auto& [id, node] : renamed) {
    auto synced = node->file->SyncData();
    if (synced) continue;
    MarkDirty(*node);  // stays known until somebody was told
    if (result) result = std::move(synced);
  }
  return result;
}

Status BranchFs::Housekeep() {
  const std::lock_guard one_round(housekeeping_mutex_);
  std::vector<std::shared_ptr<Node>> dirty;
  std::vector<NodeId> discarded;
  {
    const std::lock_guard lock(table_mutex_);
    dirty.swap(dirty_);
    discarded.swap(discarded_);
    for (const auto& node : dirty) node->in_dirty_list = false;  // what is written from now on lists it anew
  }
  Status result;
  for (auto& node : dirty) {
    const Pin pin(this, node);  // takes over the list's
    auto synced = SyncNode(*node, UpperFile::For::kBackground);
    if (synced) continue;
    MarkDirty(*node);
    if (result) result = std::move(synced);
  }
  if (auto synced = db_.Sync(); !synced) {
    const std::lock_guard lock(table_mutex_);
    discarded_.insert(discarded_.end(), discarded.begin(), discarded.end());
    return synced;
  }
  data_.RemoveIdleSpares();
  for (const NodeId inode : discarded) data_.Remove(inode);
  return result;
}

void BranchFs::BackgroundLoop() {
  for (;;) {
    {
      std::unique_lock lock(background_mutex_);
      background_wake_.wait_for(lock, kHousekeepingPeriod, [&] { return background_stop_ || background_now_; });
      if (background_stop_) return;
      background_now_ = false;
    }
    // A failure stays in the lists and comes back in the next round, and to whoever calls fsync.
    static_cast<void>(Housekeep());
  }
}

Status BranchFs::SyncAll() {
  auto result = Housekeep();
  // Files that nobody synced, and perhaps nobody holds any more: all of the disk in one call, however many they are.
  if (data_written_.exchange(false) || host_handles_ > 0) {
    if (auto synced = data_.SyncAll(); !synced) {
      data_written_ = true;
      if (result) result = std::move(synced);
    }
  }
  return result;
}

Status BranchFs::Close() {
  if (!background_.joinable()) return {};
  {
    const std::lock_guard lock(background_mutex_);
    background_stop_ = true;
  }
  background_wake_.notify_all();
  background_.join();
  auto result = Housekeep();
  data_.RemoveSpares();
  GiveReserve();
  db_.BeforeSync({});
  renamed_.clear();
  {
    const std::lock_guard lock(table_mutex_);
    for (auto& [id, node] : nodes_) node->file.reset();
  }
  if (auto cleaned = RemoveOrphans(); !cleaned && result) result = std::move(cleaned);
  db_.OnFullDisk({});
  return result;
}

}  // namespace mirage
