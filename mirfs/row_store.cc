#include "mirfs/row_store.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "mirfs/row_buffer.h"
#include "mirfs/row_log.h"
#include "mirfs/row_table.h"
#include "store/encoding.h"
#include "store/give_way.h"

namespace mirage {
namespace {

constexpr size_t kMostWaiting = 3;  // tables' worth of rows, and segments' of log, behind those that are sealed
constexpr auto kRetryPeriod = std::chrono::seconds(1);
constexpr std::string_view kTablePrefix = "rows.";
constexpr std::string_view kNewTable = "rows.new";

// The payload of a record: changes, each u8 kind, u16 length of the key, key; of a put u32 length of the value, value.
enum Change : uint8_t { kDelete = 0, kPut = 1 };

template <typename Visit>
Status ForEachChange(std::string_view payload, const Visit& visit) {
  Decoder in(payload);
  while (in.left() > 0) {
    const auto kind = in.Take<uint8_t>();
    const std::string_view key = in.Bytes(in.Take<uint16_t>());
    std::optional<std::string_view> value;
    if (kind == kPut) value = in.Bytes(in.Take<uint32_t>());
    if (!in.ok() || kind > kPut) return Fail(EIO, "overlay: damaged record in the log");
    visit(key, value);
  }
  return {};
}

// A table is not merged into the last of a disk.
bool HasRoomFor(uint64_t bytes, const std::string& path) {
  struct statvfs st {};
  return ::statvfs(path.c_str(), &st) == 0 && uint64_t{st.f_bavail} * st.f_frsize >= 2 * bytes + (64 << 20);
}

// A table's name says which batches' changes it holds.
struct Range {
  uint64_t first = 0, last = 0;
};
std::string TableName(const Range& range) { return fmt::format("{}{}-{}", kTablePrefix, range.first, range.last); }
std::optional<Range> RangeOf(std::string_view name) {
  if (!name.starts_with(kTablePrefix)) return std::nullopt;
  name.remove_prefix(kTablePrefix.size());
  Range range;
  const char* const end = name.data() + name.size();
  const auto first = std::from_chars(name.data(), end, range.first);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') return std::nullopt;
  const auto last = std::from_chars(first.ptr + 1, end, range.last);
  if (last.ec != std::errc() || last.ptr != end || range.first == 0 || range.first > range.last) return std::nullopt;
  return range;
}

// Of rows in memory, which outlive it.
template <typename Rows>
class MemoryRows : public RowCursor {
 public:
  explicit MemoryRows(const Rows& rows) : at_(rows.begin()), end_(rows.end()) {}
  bool valid() const override { return at_ != end_; }
  std::string_view key() const override { return at_->first; }
  std::optional<std::string_view> value() const override { return at_->second; }
  Status Next() override {
    ++at_;
    return {};
  }

 private:
  typename Rows::const_iterator at_, end_;
};

using RowCopies = std::vector<std::pair<std::string, RowBuffer::Row>>;
RowCopies CopyOf(const RowBuffer::Rows& rows, std::string_view prefix) {
  RowCopies copies;
  for (auto row = rows.lower_bound(prefix); row != rows.end() && row->first.starts_with(prefix); ++row) copies.emplace_back(*row);
  return copies;
}

// Ends with ECANCELED when `stop` is set.
class StoppableRows final : public RowCursor {
 public:
  StoppableRows(RowCursor& rows, const std::atomic<bool>& stop) : rows_(rows), stop_(stop) {}
  bool valid() const override { return rows_.valid(); }
  std::string_view key() const override { return rows_.key(); }
  std::optional<std::string_view> value() const override { return rows_.value(); }
  Status Next() override { return stop_ ? Fail(ECANCELED, "overlay: closed") : rows_.Next(); }

 private:
  RowCursor& rows_;
  const std::atomic<bool>& stop_;
};

}  // namespace

struct RowStore::Impl {
  struct Table {
    Range range;
    std::shared_ptr<const RowTable> rows;
  };
  using Tables = std::vector<Table>;  // ascending; each begins where the one before ends
  using TablesRef = std::shared_ptr<const Tables>;

  Impl(Env& e, std::string directory, const Limits& l) : env(e), path(std::move(directory)), limits(l), log(e, path) {}
  ~Impl();

  Status Open();
  Status OpenTables();
  void Change(std::string_view key, const std::optional<std::string_view>& value);
  // With write_mutex held; both let it go while they wait for the sealed rows to be applied.
  Status WaitForRoom(std::unique_lock<std::mutex>& lock);
  Status ApplyThrough(uint64_t sequence, std::unique_lock<std::mutex>& lock);
  bool IsFull(size_t times) const {
    return recent.bytes() >= times * limits.table_bytes || log.segment_bytes() >= times * limits.log_bytes;
  }
  Status Seal();
  // Until `done`, or an attempt that begins from now on has failed.
  Status AwaitAttempt(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done);
  void Run();
  Status Apply(const RowBuffer& rows, const Range& range);
  void Merge();
  void SetTables(Tables next);
  Result<Table> WriteTable(RowCursor& rows, const Range& range, bool deletions);
  Result<std::optional<std::string>> Get(std::string_view key) const;
  Status Scan(std::string_view prefix,
              const std::function<Result<bool>(std::string_view key, std::string_view value)>& visit) const;

  Env& env;
  const std::string path;
  const Limits limits;

  // Locks, in this order: apply_mutex, sync_mutex, write_mutex, tables_mutex.
  std::mutex apply_mutex;           // while rows are applied and tables merged, or all of it is copied
  std::mutex sync_mutex;            // guards what is below, and is held while the disk works
  std::function<Status()> before_sync;
  Status prepare_error;             // of before_sync, called for a table; for the next sync
  std::atomic<uint64_t> synced{0};

  std::mutex write_mutex;           // guards what is below; not held while rows are applied
  RowLog log;
  std::atomic<uint64_t> written{0};
  std::function<void()> make_room;
  Range sealed_range;
  uint64_t attempts = 0, failed_attempt = 0;  // to apply the sealed: how many were begun, and which was the last to fail
  Status last_failure;
  bool retry_now = false;
  std::atomic<bool> stop{false};
  std::condition_variable work, tried;
  std::thread applier;              // started with the first sealed rows

  mutable std::shared_mutex tables_mutex;  // guards what is below. `sealed` is changed under write_mutex too
  RowBuffer recent;                        // changed with write_mutex held too
  std::unique_ptr<RowBuffer> sealed;       // likewise; its rows are not changed any more
  TablesRef tables = std::make_shared<Tables>();  // changed with apply_mutex held too; what it points to, never
  bool may_merge = true;                   // the applier's
};

RowStore::Impl::~Impl() {
  {
    const std::lock_guard lock(write_mutex);
    stop = true;
  }
  work.notify_all();
  if (applier.joinable()) applier.join();
}

Status RowStore::Impl::OpenTables() {
  ASSIGN_OR_RETURN(const auto names, env.List(path));
  std::vector<Range> ranges;
  for (const std::string& name : names) {
    if (name == kNewTable) TRY(env.Unlink(path + "/" + name));
    if (const auto range = RangeOf(name)) ranges.push_back(*range);
  }
  // The longest of those that begin together comes first, and holds the others.
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return std::pair(a.first, b.last) < std::pair(b.first, a.last); });
  uint64_t last = 0;
  Tables found;
  for (const Range& range : ranges) {
    const std::string file = path + "/" + TableName(range);
    if (range.last <= last) {
      TRY(env.Unlink(file));
      continue;
    }
    if (range.first != last + 1) return Fail(EIO, "overlay: {}: it should begin with batch {}", file, last + 1);
    ASSIGN_OR_RETURN(auto rows, RowTable::Open(env, file));
    found.push_back({range, std::move(rows)});
    last = range.last;
  }
  SetTables(std::move(found));
  written = synced = sealed_range.last = last;
  return {};
}

Status RowStore::Impl::Open() {
  TRY(OpenTables());
  return log.Replay(written, [this](uint64_t sequence, std::string_view payload) -> Status {
    written = sequence;
    return ForEachChange(payload, [this](auto key, const auto& value) { Change(key, value); });
  });
}

void RowStore::Impl::Change(std::string_view key, const std::optional<std::string_view>& value) {
  if (value) {
    recent.Put(key, *value);
  } else if (sealed || !tables->empty()) {
    recent.Delete(key);
  } else {
    recent.Forget(key);
  }
}

void RowStore::Impl::SetTables(Tables next) {
  auto ref = std::make_shared<const Tables>(std::move(next));
  const std::lock_guard lock(tables_mutex);
  tables.swap(ref);
}

// What is sealed is what the segments that have ended hold: so a table takes the place of whole segments.
Status RowStore::Impl::Seal() {
  try {
    if (!applier.joinable()) applier = std::thread([this] { Run(); });
  } catch (const std::system_error&) {
    return Fail(EAGAIN, "overlay: {}: no thread to write a table", path);
  }
  log.EndSegment();
  sealed_range = {sealed_range.last + 1, written};
  {
    const std::lock_guard tables_lock(tables_mutex);
    sealed = std::make_unique<RowBuffer>(std::exchange(recent, {}));
  }
  work.notify_one();
  return {};
}

Status RowStore::Impl::AwaitAttempt(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done) {
  const uint64_t before = attempts;  // one that has begun may know nothing of the room that there is now
  retry_now = true;
  work.notify_one();
  tried.wait(lock, [&] { return done() || failed_attempt > before; });
  return done() ? Status() : last_failure;
}

Status RowStore::Impl::WaitForRoom(std::unique_lock<std::mutex>& lock) {
  if (sealed && IsFull(kMostWaiting)) TRY(AwaitAttempt(lock, [this] { return !sealed || !IsFull(kMostWaiting); }));
  if (sealed || !IsFull(1)) return {};
  auto done = Seal();
  return IsFull(kMostWaiting) ? done : Status();
}

Status RowStore::Impl::ApplyThrough(uint64_t sequence, std::unique_lock<std::mutex>& lock) {
  const auto applied = [&] { return !sealed && sealed_range.last >= sequence; };
  while (!applied()) {
    if (sealed) TRY(AwaitAttempt(lock, [this] { return !sealed; }));
    if (!sealed && sealed_range.last < sequence) TRY(Seal());
  }
  return {};
}

void RowStore::Impl::Run() {
  RunAnywhere();
  std::unique_lock lock(write_mutex);
  for (;;) {
    work.wait(lock, [this] { return stop || sealed; });
    if (sealed && failed_attempt == attempts && attempts > 0) {
      work.wait_for(lock, kRetryPeriod, [this] { return stop || retry_now; });
    }
    if (stop) return;
    retry_now = false;
    ++attempts;
    const Range range = sealed_range;
    lock.unlock();
    {
      const std::lock_guard one(apply_mutex);
      auto applied = Apply(*sealed, range);
      std::unique_ptr<RowBuffer> done;
      lock.lock();
      if (applied) {
        const std::lock_guard tables_lock(tables_mutex);
        done = std::move(sealed);
      } else {
        failed_attempt = attempts;
        last_failure = std::move(applied);
      }
      lock.unlock();
      tried.notify_all();
      if (done) {
        log.DropThrough(range.last);
        Merge();
      }
    }
    lock.lock();
  }
}

Result<RowStore::Impl::Table> RowStore::Impl::WriteTable(RowCursor& rows, const Range& range, bool deletions) {
  const std::string made = fmt::format("{}/{}", path, kNewTable), file = path + "/" + TableName(range);
  auto table = [&]() -> Result<Table> {
    TRY(RowTable::Write(env, made, rows, deletions));
    TRY(env.Rename(made, file));
    TRY(env.SyncDirectory(path));
    ASSIGN_OR_RETURN(auto opened, RowTable::Open(env, file));
    return Table{range, std::move(opened)};
  }();
  if (!table) {
    static_cast<void>(env.Unlink(made));
    // What is left of a merge must not lie across the tables of another.
    if (const auto gone = env.Unlink(file); !gone && gone.error().code != ENOENT) may_merge = false;
  }
  return table;
}

// They are on the disk when it returns.
Status RowStore::Impl::Apply(const RowBuffer& rows, const Range& range) {
  {
    const std::lock_guard lock(sync_mutex);
    if (before_sync) {
      if (auto prepared = before_sync(); !prepared) {
        prepare_error = prepared;
        return prepared;
      }
    }
  }
  MemoryRows<RowBuffer::Rows> cursor(rows.rows());
  ASSIGN_OR_RETURN(auto table, WriteTable(cursor, range, !tables->empty()));
  Tables next = *tables;
  next.push_back(std::move(table));
  SetTables(std::move(next));
  return {};
}

// Of the last tables as many as are, all together, longer than half of the one before. If it fails they stay as they are, until
// there is one more.
void RowStore::Impl::Merge() {
  const Tables& all = *tables;
  size_t from = all.size() - 1;
  uint64_t bytes = all[from].rows->size_bytes();
  while (from > 0 && all[from - 1].rows->size_bytes() < 2 * bytes) bytes += all[--from].rows->size_bytes();
  if (from == all.size() - 1 || !may_merge || !HasRoomFor(bytes, path)) return;
  std::vector<std::unique_ptr<RowCursor>> cursors;
  for (size_t i = all.size(); i-- > from;) {
    auto cursor = all[i].rows->Seek("");
    if (!cursor) return;
    cursors.push_back(std::move(*cursor));
  }
  MergedRows merged_rows(std::move(cursors));
  StoppableRows rows(merged_rows, stop);
  auto merged = WriteTable(rows, {all[from].range.first, all.back().range.last}, from > 0);
  if (!merged) return;
  const TablesRef before = tables;
  const auto first_gone = before->begin() + static_cast<std::ptrdiff_t>(from);
  Tables next(before->begin(), first_gone);
  next.push_back(std::move(*merged));
  SetTables(std::move(next));
  for (auto gone = first_gone; gone != before->end(); ++gone) {
    static_cast<void>(env.Unlink(path + "/" + TableName(gone->range)));
  }
}

Result<std::optional<std::string>> RowStore::Impl::Get(std::string_view key) const {
  TablesRef older;
  {
    const std::shared_lock lock(tables_mutex);
    if (const auto* row = recent.Find(key)) return *row;
    if (const auto* row = sealed ? sealed->Find(key) : nullptr) return *row;
    if (tables->empty()) return std::optional<std::string>();
    older = tables;
  }
  for (auto table = older->rbegin(); table != older->rend(); ++table) {
    ASSIGN_OR_RETURN(auto row, table->rows->Find(key));
    if (row) return std::move(*row);
  }
  return std::optional<std::string>();
}

Status RowStore::Impl::Scan(std::string_view prefix,
                            const std::function<Result<bool>(std::string_view, std::string_view)>& visit) const {
  // Visitors may ask the store, so what is in memory is copied: that of a directory, or at a commit all of it.
  RowCopies newest, newer;
  TablesRef older;
  {
    const std::shared_lock lock(tables_mutex);
    newest = CopyOf(recent.rows(), prefix);
    if (sealed) newer = CopyOf(sealed->rows(), prefix);
    older = tables;
  }
  std::vector<std::unique_ptr<RowCursor>> cursors;
  for (const RowCopies* rows : {&newest, &newer}) cursors.push_back(std::make_unique<MemoryRows<RowCopies>>(*rows));
  for (auto table = older->rbegin(); table != older->rend(); ++table) {
    ASSIGN_OR_RETURN(auto cursor, table->rows->Seek(prefix));
    cursors.push_back(std::move(cursor));
  }
  for (MergedRows rows(std::move(cursors)); rows.valid() && rows.key().starts_with(prefix);) {
    if (rows.value()) {
      ASSIGN_OR_RETURN(const bool more, visit(rows.key(), *rows.value()));
      if (!more) return {};
    }
    TRY(rows.Next());
  }
  return {};
}

RowStore::Batch::Batch() : record_(RowLog::kRecordHeaderBytes, '\0') {}
void RowStore::Batch::Put(std::string_view key, std::string_view value) {
  mirage::Put<uint8_t>(&record_, kPut);
  mirage::Put<uint16_t>(&record_, static_cast<uint16_t>(key.size()));
  record_.append(key);
  mirage::Put<uint32_t>(&record_, static_cast<uint32_t>(value.size()));
  record_.append(value);
}
void RowStore::Batch::Delete(std::string_view key) {
  mirage::Put<uint8_t>(&record_, kDelete);
  mirage::Put<uint16_t>(&record_, static_cast<uint16_t>(key.size()));
  record_.append(key);
}

RowStore::RowStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowStore::~RowStore() = default;

Result<std::unique_ptr<RowStore>> RowStore::Open(Env& env, const std::string& path, bool create, const Limits& limits) {
  if (create) TRY(env.MakeDirectory(path, 0700));
  auto impl = std::make_unique<Impl>(env, path, limits);
  TRY(impl->Open());
  return std::unique_ptr<RowStore>(new RowStore(std::move(impl)));
}

Status RowStore::Write(Batch& batch) {
  Impl& db = *impl_;
  std::unique_lock lock(db.write_mutex);
  auto room = db.WaitForRoom(lock);
  if (!room && room.error().code == ENOSPC && db.make_room) {
    db.make_room();
    room = db.WaitForRoom(lock);
  }
  TRY(std::move(room));
  const uint64_t sequence = db.written + 1;
  auto appended = db.log.Append(sequence, &batch.record_);
  if (!appended && appended.error().code == ENOSPC && db.make_room) {
    db.make_room();
    appended = db.log.Append(sequence, &batch.record_);
  }
  TRY(std::move(appended));
  const auto payload = std::string_view(batch.record_).substr(RowLog::kRecordHeaderBytes);
  const std::lock_guard tables_lock(db.tables_mutex);
  db.written = sequence;
  return ForEachChange(payload, [&](auto key, const auto& value) { db.Change(key, value); });
}

void RowStore::OnFullDisk(std::function<void()> make_room) {
  const std::lock_guard lock(impl_->write_mutex);
  impl_->make_room = std::move(make_room);
}

void RowStore::BeforeSync(std::function<Status()> prepare) {
  const std::lock_guard lock(impl_->sync_mutex);
  impl_->before_sync = std::move(prepare);
}

Status RowStore::CopyTo(const std::string& path) const {
  Impl& db = *impl_;
  const std::lock_guard nothing_is_applied(db.apply_mutex);
  TRY(db.env.MakeDirectory(path, 0700));
  std::vector<RowLog::Part> parts;
  {
    const std::lock_guard lock(db.write_mutex);
    parts = db.log.Parts();
  }
  TRY(db.log.Copy(parts, path));
  for (const auto& table : *db.tables) {
    const std::string name = "/" + TableName(table.range);
    TRY(db.env.Link(db.path + name, path + name));
  }
  return {};
}

uint64_t RowStore::sequence() const { return impl_->written; }

Status RowStore::SyncTo(uint64_t sequence) {
  Impl& db = *impl_;
  if (db.synced >= sequence) return {};
  Status synced;
  uint64_t before = 0;
  {
    const std::lock_guard lock(db.sync_mutex);
    if (db.synced >= sequence) return {};
    before = db.written;
    TRY(std::exchange(db.prepare_error, {}));
    if (db.before_sync) TRY(db.before_sync());
    synced = db.log.Sync();
    if (synced) db.synced = before;
  }
  if (synced) return {};
  {
    std::unique_lock lock(db.write_mutex);
    if (!db.ApplyThrough(before, lock)) return synced;
  }
  const std::lock_guard lock(db.sync_mutex);
  db.synced = std::max<uint64_t>(db.synced, before);
  return {};
}

Result<std::optional<std::string>> RowStore::Get(std::string_view key) const { return impl_->Get(key); }

Status RowStore::Scan(std::string_view prefix,
                      const std::function<Result<bool>(std::string_view, std::string_view)>& visit) const {
  return impl_->Scan(prefix, visit);
}

}  // namespace mirage
