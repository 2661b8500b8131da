#include <rocksdb/sst_file_reader.h>
#include <rocksdb/sst_file_writer.h>

#include <algorithm>
#include <queue>

#include "store/metadata_db.h"
#include "store/rocksdb_options.h"

namespace mirage {
namespace {

constexpr uint64_t kSstBytes = 32 << 20;
constexpr size_t kPairOverheadBytes = 112;  // a map node and two strings, measured with libstdc++

std::string Key(ObjectKind kind, const ObjectId& id) {
  std::string key(1, static_cast<char>(kind));
  key += id.view();
  return key;
}

// Writes ascending pairs into SST files of bounded size.
class SstSeries {
 public:
  SstSeries(const RocksDbEnv& env, std::string prefix) : env_(env), prefix_(std::move(prefix)) {}
  Status Put(const rocksdb::Slice& key, const rocksdb::Slice& value) {
    TRY(OpenNext());
    if (const auto status = writer_->Put(key, value); !status.ok()) return FailRocksDb(status, "stage index");
    return {};
  }
  Status Delete(const rocksdb::Slice& key) {
    TRY(OpenNext());
    if (const auto status = writer_->Delete(key); !status.ok()) return FailRocksDb(status, "stage index");
    return {};
  }
  Status Close() {
    if (!writer_) return {};
    const auto status = writer_->Finish();  // syncs
    writer_.reset();
    if (!status.ok()) return FailRocksDb(status, "stage index");
    return {};
  }
  const std::vector<std::string>& paths() const { return paths_; }

 private:
  // The file for the next pair.
  Status OpenNext() {
    if (writer_ && writer_->FileSize() >= kSstBytes) TRY(Close());
    if (writer_) return {};
    paths_.push_back(fmt::format("{}{}.sst", prefix_, paths_.size()));
    writer_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(), LibraryDbOptions(env_));
    if (const auto status = writer_->Open(paths_.back()); !status.ok()) return FailRocksDb(status, "stage index");
    return {};
  }

  const RocksDbEnv& env_;
  std::string prefix_;
  std::vector<std::string> paths_;
  std::unique_ptr<rocksdb::SstFileWriter> writer_;
};

struct Run {
  std::unique_ptr<rocksdb::SstFileReader> reader;
};

}  // namespace

struct SortedRuns::Impl {
  Impl(Env& e, std::string d, size_t m) : env(e), directory(std::move(d)), memory_bytes(m) {}
  const RocksDbEnv env;
  std::string directory;
  size_t memory_bytes;
  size_t used_bytes = 0;
  std::map<std::string, std::string> pairs;
  std::vector<std::vector<Run>> spills;  // each a sorted series of files
  bool finished = false;

  Status Spill() {
    SstSeries series(env, fmt::format("{}/spill-{}-", directory, spills.size()));
    for (const auto& [key, value] : pairs) TRY(series.Put(key, value));
    TRY(series.Close());
    spills.emplace_back();
    for (const std::string& path : series.paths()) {
      auto reader = std::make_unique<rocksdb::SstFileReader>(LibraryDbOptions(env));
      if (const auto status = reader->Open(path); !status.ok()) return FailRocksDb(status, "stage index");
      spills.back().push_back(Run{std::move(reader)});
    }
    pairs.clear();
    used_bytes = 0;
    return {};
  }

  Result<std::optional<std::string>> GetSpilled(const std::string& key) const {
    for (const auto& spill : spills) {
      for (const Run& run : spill) {
        std::unique_ptr<rocksdb::Iterator> it(run.reader->NewIterator(rocksdb::ReadOptions()));
        it->Seek(key);
        if (!it->status().ok()) return FailRocksDb(it->status(), "staged index");
        if (it->Valid() && it->key() == rocksdb::Slice(key)) return std::optional<std::string>(it->value().ToString());
      }
    }
    return std::optional<std::string>();
  }
};

SortedRuns::SortedRuns(Env& env, std::string directory, size_t memory_bytes)
    : impl_(std::make_unique<Impl>(env, std::move(directory), memory_bytes)) {}
SortedRuns::~SortedRuns() = default;

bool SortedRuns::empty() const { return impl_->pairs.empty() && impl_->spills.empty(); }

Status SortedRuns::Put(ObjectKind kind, const ObjectId& id, std::string value) {
  std::string key = Key(kind, id);
  const size_t bytes = key.size() + value.size() + kPairOverheadBytes;
  if (!impl_->pairs.emplace(std::move(key), std::move(value)).second) return {};
  impl_->used_bytes += bytes;
  if (impl_->used_bytes > impl_->memory_bytes) TRY(impl_->Spill());
  return {};
}

Result<std::optional<std::string>> SortedRuns::Get(ObjectKind kind, const ObjectId& id) const {
  const std::string key = Key(kind, id);
  if (const auto it = impl_->pairs.find(key); it != impl_->pairs.end()) return std::optional<std::string>(it->second);
  return impl_->GetSpilled(key);
}

struct RowFiles::Impl {
  Impl(Env& e, std::string prefix) : env(e), series(env, std::move(prefix)) {}
  const RocksDbEnv env;
  SstSeries series;
};
RowFiles::RowFiles(Env& env, std::string prefix) : impl_(std::make_unique<Impl>(env, std::move(prefix))) {}
RowFiles::~RowFiles() = default;
Status RowFiles::Put(ObjectKind kind, const ObjectId& id, std::string_view value) {
  return impl_->series.Put(Key(kind, id), rocksdb::Slice(value.data(), value.size()));
}
Status RowFiles::Delete(ObjectKind kind, const ObjectId& id) { return impl_->series.Delete(Key(kind, id)); }
Result<std::vector<std::string>> RowFiles::Finish() {
  TRY(impl_->series.Close());
  return impl_->series.paths();
}

Status SortedRuns::Visit(const std::function<Status(std::string_view, std::string_view)>& visit) {
  if (impl_->spills.empty()) {
    for (const auto& [key, value] : impl_->pairs) TRY(visit(key, value));
    return {};
  }
  TRY(impl_->Spill());
  // k-way merge of the spills; a key in several is visited once (an id has one meaning).
  struct Cursor {
    const std::vector<Run>* spill;
    size_t file = 0;
    std::unique_ptr<rocksdb::Iterator> it;
    bool Open() {
      while (file < spill->size()) {
        it.reset((*spill)[file++].reader->NewIterator(rocksdb::ReadOptions()));
        it->SeekToFirst();
        if (it->Valid() || !it->status().ok()) return true;
      }
      return false;
    }
  };
  std::vector<Cursor> cursors;
  for (const auto& spill : impl_->spills) {
    Cursor cursor{&spill, 0, nullptr};
    if (cursor.Open()) cursors.push_back(std::move(cursor));
  }
  const auto later = [&](size_t a, size_t b) { return cursors[a].it->key().compare(cursors[b].it->key()) > 0; };
  std::priority_queue<size_t, std::vector<size_t>, decltype(later)> heap(later);
  for (size_t i = 0; i < cursors.size(); ++i) {
    if (!cursors[i].it->status().ok()) return FailRocksDb(cursors[i].it->status(), "staged index");
    heap.push(i);
  }
  std::string last;
  while (!heap.empty()) {
    const size_t i = heap.top();
    heap.pop();
    Cursor& cursor = cursors[i];
    if (cursor.it->key() != rocksdb::Slice(last)) {
      last = cursor.it->key().ToString();
      TRY(visit(last, cursor.it->value().ToStringView()));
    }
    cursor.it->Next();
    bool more = cursor.it->Valid();
    if (!more && !cursor.it->status().ok()) return FailRocksDb(cursor.it->status(), "staged index");
    if (!more) more = cursor.Open();
    if (more && !cursor.it->status().ok()) return FailRocksDb(cursor.it->status(), "staged index");
    if (more) heap.push(i);
  }
  return {};
}

Result<std::vector<std::string>> SortedRuns::Finish() {
  SstSeries series(impl_->env, impl_->directory + "/index-");
  TRY(Visit([&](std::string_view key, std::string_view value) {
    return series.Put(rocksdb::Slice(key.data(), key.size()), rocksdb::Slice(value.data(), value.size()));
  }));
  TRY(series.Close());
  return series.paths();
}

}  // namespace mirage
