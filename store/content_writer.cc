#include "store/content_writer.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "store/content_list.h"
#include "store/content_splitter.h"

namespace mirage {
namespace {

constexpr size_t kPartBytes = 1 << 20;          // what a stream is handed on in
constexpr size_t kLargestWholeBytes = 4 << 20;  // a longer content is hashed by several workers, as a stream
constexpr size_t kHashBatchBytes = 128 << 10;   // what a worker takes at once: a lock costs more than to hash a file
// Whole contents are handed on together: of 17,000 files of 32 KB on average, each waking a worker, the hand-offs were
// 123,000 futex calls.
constexpr size_t kGatherBytes = 256 << 10;
constexpr size_t kOrderBatchBytes = 1 << 20;
constexpr size_t kItemBytes = 512;              // an item beside its bytes, so that empty files are bounded too
// A hole takes no memory but time: in the queue it counts as so much less than bytes do. With the default queue at most
// 2 GiB of zeros, a second or two, are hashed behind the caller's back.
constexpr uint64_t kHoleBytesAByte = 32;
constexpr size_t kBlockRowsTarget = 4096;       // a block of tiny chunks is closed here

// One step of the ordered queue.
struct Item {
  enum class Kind { kWhole, kPart, kHole, kEnd, kAbort, kFlush };
  Kind kind = Kind::kWhole;
  std::string bytes;            // kWhole, kPart
  uint64_t hole_length = 0;     // kHole
  size_t done_bytes = 0;        // kWhole, kEnd
  std::vector<Piece> pieces;    // kPart: by the caller; kWhole: by a worker
  std::vector<ObjectId> ids;    // of the pieces; zero for holes
  ObjectId content;             // kWhole
  bool known = false;           // kWhole: the sink has it; there are no pieces
  ContentWriter::Done done;     // kWhole, kEnd
  bool ready = true;            // hashed; guarded by the mutex

  bool needs_hash() const { return kind == Kind::kWhole || kind == Kind::kPart; }
  size_t cost() const { return bytes.size() + done_bytes + static_cast<size_t>(hole_length / kHoleBytesAByte) + kItemBytes; }
};

struct BlockJob {
  RawBlock raw;
  size_t cost = 0;
  std::optional<Result<CompressedBlock>> compressed;  // guarded by the mutex
};

void HashItem(const ContentWriter::Sink& sink, const Chunker& chunker, Item* item) {
  const bool whole = item->kind == Item::Kind::kWhole;
  if (whole) {
    item->content = HashBytes(item->bytes);
    item->known = !item->bytes.empty() && sink.HasContent(item->content, item->bytes.size());
    if (item->known) return;
    SplitContent(chunker, item->bytes, 0, true, &item->pieces);
  }
  item->ids.reserve(item->pieces.size());
  if (whole && item->pieces.size() == 1 && !item->pieces[0].hole) {
    item->ids.push_back(item->content);
    return;
  }
  for (const Piece& piece : item->pieces) {
    item->ids.push_back(piece.hole ? ObjectId{}
                                   : HashBytes(std::string_view(item->bytes).substr(piece.offset, piece.length)));
  }
}

}  // namespace

struct ContentWriter::Impl {
  Impl(Sink& s, ObjectWriter& objects, Options o)
      : sink(s), options(o), chunker(o.chunking), list(objects) {
    int count = options.threads > 0 ? options.threads : static_cast<int>(std::thread::hardware_concurrency());
    for (count = std::max(count, 1); count > 0; --count) workers.emplace_back([this] { Work(); });
    orderer = std::thread([this] { Order(); });
  }
  ~Impl();

  // The caller's side.
  Status Enqueue(std::unique_ptr<Item> item);  // behind what was gathered; waits for room; a flush, till it is through
  Status Gather(std::unique_ptr<Item> item);   // a whole content
  Status HandOnGathered();  // under gather_mutex; waits for room
  Status Sticky() const;
  Status AppendSlice(std::string_view bytes);
  Status HandOn(bool last);
  size_t FullBufferBytes() const { return kPartBytes + options.chunking.max_bytes + kHoleBytes; }

  // The workers.
  void Work();

  // The orderer's thread: the only one that touches the sink, and what is declared as its own below.
  void Order();
  Status Take(Item* item);
  Status TakePieces(const Item& item);
  Status TakeHole(uint64_t length);
  Status TakeChunk(const ObjectId& id, std::string_view bytes);
  Status TakeBlock(BlockJob* job);
  void CloseBlock();
  void SetError(Error first);

  Sink& sink;
  const Options options;
  const Chunker chunker;

  std::mutex gather_mutex;  // guards the two below; taken before `mutex`
  std::vector<std::unique_ptr<Item>> gathered;
  size_t gathered_bytes = 0;

  // Of the caller's thread: the stream that was begun.
  bool streaming = false;
  bool handed_on = false;     // a part or hole of it was
  std::string buffer;         // what was not handed on yet; begins at a piece
  uint64_t buffer_offset = 0; // its place in the content
  Done stream_done;
  size_t stream_done_bytes = 0;

  // Of the orderer's thread.
  RawBlock block;                                         // being filled
  std::unordered_set<ObjectId, ObjectIdHash> on_the_way;  // chunks in blocks the sink has not got yet
  ContentListBuilder list;
  Sha256 stream_hash;
  uint64_t stream_bytes = 0;
  Statistics counted;
  bool failed = false;

  mutable std::mutex mutex;               // guards all below
  std::condition_variable work_to_do;     // for the workers
  std::condition_variable in_order;       // for the orderer: the first item or block is ready
  std::condition_variable room;           // for callers: `queued_bytes` fell, a flush is through, or the writer failed
  std::deque<std::unique_ptr<Item>> items;       // in the order given
  std::deque<Item*> to_hash;                     // some of them
  std::deque<std::unique_ptr<BlockJob>> blocks;  // in the order closed
  std::deque<BlockJob*> to_compress;
  // Bytes in `items` and `blocks`. The block being filled does not count: it may wait for input, which would wait for
  // it.
  size_t queued_bytes = 0;
  int idle_workers = 0;
  uint64_t flushes_begun = 0, flushes_done = 0;
  std::optional<Error> error;  // the first; set by the orderer alone, so that no `done` runs once it is seen
  std::atomic<bool> has_error = false;  // written under the mutex
  Statistics statistics;
  std::atomic<bool> stop = false;  // written under the mutex

  std::vector<std::thread> workers;
  std::thread orderer;
};

ContentWriter::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stop = true;
  }
  work_to_do.notify_all();
  in_order.notify_all();
  orderer.join();
  for (std::thread& worker : workers) worker.join();
}

Status ContentWriter::Impl::Sticky() const {
  const std::lock_guard lock(mutex);
  if (error) return tl::make_unexpected(*error);
  return {};
}

Status ContentWriter::Impl::Gather(std::unique_ptr<Item> item) {
  if (has_error) return Sticky();
  const std::lock_guard lock(gather_mutex);
  gathered_bytes += item->cost();
  gathered.push_back(std::move(item));
  return gathered_bytes < std::min(kGatherBytes, options.queue_bytes / 4) ? Status{} : HandOnGathered();
}

Status ContentWriter::Impl::HandOnGathered() {
  if (gathered.empty()) return {};
  const size_t cost = std::exchange(gathered_bytes, 0);
  auto batch = std::exchange(gathered, {});
  std::unique_lock lock(mutex);
  room.wait(lock, [&] { return error || queued_bytes == 0 || queued_bytes + cost <= options.queue_bytes; });
  if (error) return tl::make_unexpected(*error);
  queued_bytes += cost;
  for (auto& item : batch) {
    item->ready = false;
    to_hash.push_back(item.get());
    items.push_back(std::move(item));
  }
  if (idle_workers > 0) work_to_do.notify_one();
  return {};
}

Status ContentWriter::Impl::Enqueue(std::unique_ptr<Item> item) {
  const std::unique_lock gather_lock(gather_mutex);
  TRY(HandOnGathered());
  const size_t cost = item->cost();
  std::unique_lock lock(mutex);
  room.wait(lock, [&] { return error || queued_bytes == 0 || queued_bytes + cost <= options.queue_bytes; });
  if (error) return tl::make_unexpected(*error);
  queued_bytes += cost;
  if (item->needs_hash()) {
    item->ready = false;
    to_hash.push_back(item.get());
    if (idle_workers > 0) work_to_do.notify_one();
  } else if (items.empty()) {
    in_order.notify_one();
  }
  const bool flush = item->kind == Item::Kind::kFlush;
  items.push_back(std::move(item));
  if (!flush) return {};
  const uint64_t mine = ++flushes_begun;
  room.wait(lock, [&] { return error || flushes_done >= mine; });
  if (error) return tl::make_unexpected(*error);
  return {};
}

void ContentWriter::Impl::Work() {
  std::vector<Item*> batch;
  std::unique_lock lock(mutex);
  for (;;) {
    ++idle_workers;
    work_to_do.wait(lock, [&] { return stop || !to_compress.empty() || !to_hash.empty(); });
    --idle_workers;
    if (stop) return;
    if (!to_compress.empty()) {  // first, for it makes room
      BlockJob* job = to_compress.front();
      to_compress.pop_front();
      lock.unlock();
      auto compressed = CompressBlock(job->raw, options.zstd_level);
      job->raw = {};
      lock.lock();
      job->compressed = std::move(compressed);
      if (blocks.front().get() == job) in_order.notify_one();
      continue;
    }
    size_t bytes = 0;
    batch.clear();
    do {
      batch.push_back(to_hash.front());
      bytes += batch.back()->bytes.size();
      to_hash.pop_front();
    } while (bytes < kHashBatchBytes && !to_hash.empty());
    lock.unlock();
    for (Item* item : batch) HashItem(sink, chunker, item);
    lock.lock();
    for (Item* item : batch) item->ready = true;
    if (items.front()->ready) in_order.notify_one();
  }
}

void ContentWriter::Impl::Order() {
  std::vector<std::unique_ptr<Item>> batch;
  std::unique_lock lock(mutex);
  for (;;) {
    const auto block_ready = [&] { return !blocks.empty() && blocks.front()->compressed.has_value(); };
    // A flush stays the first until all blocks before it are with the sink.
    const auto item_ready = [&] {
      if (items.empty() || !items.front()->ready) return false;
      return items.front()->kind != Item::Kind::kFlush || !block.rows.empty() || blocks.empty();
    };
    in_order.wait(lock, [&] { return stop || block_ready() || item_ready(); });
    if (stop) return;
    if (block_ready()) {
      const std::unique_ptr<BlockJob> job = std::move(blocks.front());
      blocks.pop_front();
      lock.unlock();
      if (!failed) {
        if (Status status = TakeBlock(job.get()); !status) SetError(std::move(status).error());
      }
      lock.lock();
      queued_bytes -= job->cost;
    } else if (items.front()->kind == Item::Kind::kFlush) {
      if (!block.rows.empty()) {
        lock.unlock();
        CloseBlock();
        lock.lock();
        continue;
      }
      queued_bytes -= items.front()->cost();
      items.pop_front();
      ++flushes_done;
    } else {
      size_t cost = 0;
      batch.clear();
      while (cost < kOrderBatchBytes && !items.empty() && items.front()->ready &&
             items.front()->kind != Item::Kind::kFlush) {
        cost += items.front()->cost();
        batch.push_back(std::move(items.front()));
        items.pop_front();
      }
      lock.unlock();
      for (const auto& item : batch) {
        if (failed) break;
        if (Status status = Take(item.get()); !status) SetError(std::move(status).error());
      }
      batch.clear();
      lock.lock();
      queued_bytes -= cost;
    }
    statistics = counted;
    room.notify_all();
  }
}

void ContentWriter::Impl::SetError(Error first) {
  failed = true;
  block = {};
  const std::lock_guard lock(mutex);
  error = std::move(first);
  has_error = true;
  room.notify_all();
}

Status ContentWriter::Impl::Take(Item* item) {
  switch (item->kind) {
    case Item::Kind::kWhole:
      if (item->known) {
        counted.bytes_in += item->bytes.size();
      } else {
        TRY(TakePieces(*item));
        if (!item->bytes.empty()) TRY(list.Finish(item->content));
      }
      if (item->done) item->done(item->content, item->bytes.size());
      return {};
    case Item::Kind::kPart:
      stream_hash.Update(item->bytes);
      stream_bytes += item->bytes.size();
      return TakePieces(*item);
    case Item::Kind::kHole:
      return TakeHole(item->hole_length);
    case Item::Kind::kEnd: {
      const ObjectId content = stream_hash.Finish();
      TRY(list.Finish(content));
      if (item->done) item->done(content, stream_bytes);
      stream_bytes = 0;
      return {};
    }
    case Item::Kind::kAbort:
      static_cast<void>(stream_hash.Finish());
      list.Clear();
      stream_bytes = 0;
      return {};
    case Item::Kind::kFlush:
      break;
  }
  return {};
}

Status ContentWriter::Impl::TakePieces(const Item& item) {
  counted.bytes_in += item.bytes.size();
  for (size_t i = 0; i < item.pieces.size(); ++i) {
    const Piece& piece = item.pieces[i];
    if (!piece.hole) TRY(TakeChunk(item.ids[i], std::string_view(item.bytes).substr(piece.offset, piece.length)));
    TRY(list.Add({.length = piece.length, .id = item.ids[i]}));
  }
  return {};
}

// A content's id is the hash of its bytes, so its zeros are hashed, whoever else skips them.
Status ContentWriter::Impl::TakeHole(uint64_t length) {
  static const std::string zeros(256 << 10, '\0');
  for (uint64_t left = length; left > 0 && !stop;) {
    const size_t n = static_cast<size_t>(std::min<uint64_t>(left, zeros.size()));
    stream_hash.Update(std::string_view(zeros).substr(0, n));
    left -= n;
  }
  stream_bytes += length;
  counted.bytes_in += length;
  return list.Add({.length = length, .id = {}});
}

Status ContentWriter::Impl::TakeChunk(const ObjectId& id, std::string_view bytes) {
  ++counted.chunks;
  if (on_the_way.contains(id)) return {};
  ASSIGN_OR_RETURN(const bool has, sink.HasChunk(id));
  if (has) return {};
  ++counted.new_chunks;
  counted.new_chunk_bytes += bytes.size();
  on_the_way.insert(id);
  if (block.bytes.capacity() == 0) block.bytes.reserve(kBlockTargetBytes + options.chunking.max_bytes);
  block.rows.push_back({ObjectKind::kChunk, static_cast<uint32_t>(bytes.size()), id});
  block.bytes.append(bytes);
  if (block.bytes.size() >= kBlockTargetBytes || block.rows.size() >= kBlockRowsTarget) CloseBlock();
  return {};
}

void ContentWriter::Impl::CloseBlock() {
  auto job = std::make_unique<BlockJob>();
  job->raw = std::exchange(block, {});
  job->cost = job->raw.bytes.size() + job->raw.rows.size() * sizeof(BlockRow);
  const std::lock_guard lock(mutex);
  queued_bytes += job->cost;
  to_compress.push_back(job.get());
  blocks.push_back(std::move(job));
  if (idle_workers > 0) work_to_do.notify_one();
}

Status ContentWriter::Impl::TakeBlock(BlockJob* job) {
  ASSIGN_OR_RETURN(CompressedBlock compressed, std::move(*job->compressed));
  std::vector<ObjectId> ids;
  ids.reserve(compressed.rows.size());
  for (const BlockRow& row : compressed.rows) ids.push_back(row.id);
  counted.stored_bytes += compressed.frame.size() + compressed.rows.size() * sizeof(BlockRow);
  TRY(sink.AppendBlock(std::move(compressed)));
  for (const ObjectId& id : ids) on_the_way.erase(id);
  return {};
}

// Hands on what of the buffer can be split; all of it when the run of data ends here.
Status ContentWriter::Impl::HandOn(bool last) {
  auto item = std::make_unique<Item>();
  item->kind = Item::Kind::kPart;
  const size_t used = SplitContent(chunker, buffer, buffer_offset, last, &item->pieces);
  if (used == 0) return {};
  std::string rest = buffer.substr(used);
  rest.reserve(FullBufferBytes());
  buffer.resize(used);
  item->bytes = std::exchange(buffer, std::move(rest));
  buffer_offset += used;
  handed_on = true;
  return Enqueue(std::move(item));
}

Status ContentWriter::Impl::AppendSlice(std::string_view bytes) {
  if (!streaming) return Fail(EINVAL, "content writer: no stream was begun");
  if (bytes.size() > kMaxFileSize - buffer_offset - buffer.size()) {
    return Fail(EFBIG, "content writer: a content of more than {} bytes", kMaxFileSize);
  }
  const size_t full = FullBufferBytes();
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), full - buffer.size());
    buffer.append(bytes.substr(0, n));
    bytes.remove_prefix(n);
    if (buffer.size() == full) TRY(HandOn(false));
  }
  return {};
}

ContentWriter::ContentWriter(Sink& sink, ObjectWriter& objects, Options options)
    : impl_(std::make_unique<Impl>(sink, objects, options)) {}

ContentWriter::~ContentWriter() = default;

Status ContentWriter::Put(std::string bytes, Done done, size_t done_bytes) {
  if (impl_->streaming) return Fail(EINVAL, "content writer: Put inside a stream");
  if (bytes.size() > kLargestWholeBytes) {
    TRY(Begin(std::move(done), done_bytes));
    TRY(Append(bytes));
    return End();
  }
  auto item = std::make_unique<Item>();
  item->bytes = std::move(bytes);
  item->done = std::move(done);
  item->done_bytes = done_bytes;
  return impl_->Gather(std::move(item));
}

Status ContentWriter::Begin(Done done, size_t done_bytes) {
  if (impl_->streaming) return Fail(EINVAL, "content writer: a stream inside a stream");
  TRY(impl_->Sticky());
  impl_->streaming = true;
  impl_->handed_on = false;
  impl_->buffer.clear();
  impl_->buffer_offset = 0;
  impl_->stream_done = std::move(done);
  impl_->stream_done_bytes = done_bytes;
  return {};
}

Status ContentWriter::Append(std::string_view bytes) { return impl_->AppendSlice(bytes); }

Status ContentWriter::AppendZeros(uint64_t length) {
  static const std::string zeros(kHoleBytes, '\0');
  Impl& impl = *impl_;
  const uint64_t at = impl.buffer_offset + impl.buffer.size();
  if (length > kMaxFileSize - at) {
    return Fail(EFBIG, "content writer: a content of more than {} bytes", kMaxFileSize);
  }
  // Up to the next aligned place, whole blocks, and what is left.
  const uint64_t before = std::min<uint64_t>(length, (kHoleBytes - at % kHoleBytes) % kHoleBytes);
  const uint64_t blocks = (length - before) / kHoleBytes * kHoleBytes;
  TRY(Append(std::string_view(zeros).substr(0, static_cast<size_t>(before))));
  if (blocks > 0) {
    TRY(impl.HandOn(true));
    auto hole = std::make_unique<Item>();
    hole->kind = Item::Kind::kHole;
    hole->hole_length = blocks;
    impl.buffer_offset += blocks;
    impl.handed_on = true;
    TRY(impl.Enqueue(std::move(hole)));
  }
  return Append(std::string_view(zeros).substr(0, static_cast<size_t>(length - before - blocks)));
}

Status ContentWriter::End() {
  Impl& impl = *impl_;
  if (!impl.streaming) return Fail(EINVAL, "content writer: no stream was begun");
  impl.streaming = false;
  if (!impl.handed_on) {
    return Put(std::exchange(impl.buffer, {}), std::move(impl.stream_done), impl.stream_done_bytes);
  }
  TRY(impl.HandOn(true));
  auto end = std::make_unique<Item>();
  end->kind = Item::Kind::kEnd;
  end->done = std::move(impl.stream_done);
  end->done_bytes = impl.stream_done_bytes;
  return impl.Enqueue(std::move(end));
}

Status ContentWriter::AbortStream() {
  Impl& impl = *impl_;
  if (!std::exchange(impl.streaming, false)) return {};
  impl.buffer.clear();
  impl.stream_done = nullptr;
  if (!impl.handed_on) return {};
  auto abort = std::make_unique<Item>();
  abort->kind = Item::Kind::kAbort;
  return impl.Enqueue(std::move(abort));
}

Status ContentWriter::Flush() {
  Impl& impl = *impl_;
  if (impl.streaming) return Fail(EINVAL, "content writer: Flush inside a stream");
  auto flush = std::make_unique<Item>();
  flush->kind = Item::Kind::kFlush;
  return impl.Enqueue(std::move(flush));
}

ContentWriter::Statistics ContentWriter::statistics() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->statistics;
}

}  // namespace mirage
