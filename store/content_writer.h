// File bytes in, content ids out: cuts, hashes, deduplicates and compresses on several threads, and lays chunks
// into packs in the order their contents were given, whatever thread finishes first.
//
//   caller -> [hash workers] -> (in order) deduplicate, fill block -> [compress workers] -> (in order) pack
//
// A whole content that the library has already is not cut: it costs one hash, not two, and a look at its list. Of a
// version imported again, most files are such.
//
// Memory is bounded: at most `queue_bytes` of file bytes are on the way; a caller that gives more waits. (One content
// larger than that is let in alone.) So is what a barrier waits for: of zeros given as such 32 times as much.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "store/chunker.h"
#include "store/object.h"
#include "store/pack.h"

namespace mirage {

class ContentWriter {
 public:
  struct Options {
    int threads = 0;  // 0: one a processor
    int zstd_level = 2;
    size_t queue_bytes = 64 << 20;
    ChunkingParameters chunking;
  };
  // Where finished pieces go. Called from one thread, in order, but for HasContent.
  class Sink {
   public:
    virtual ~Sink() = default;
    // Whether the library, or this transaction so far, has the chunk (writers do not deduplicate against condemned
    // packs).
    virtual Result<bool> HasChunk(const ObjectId& id) = 0;
    // Whether the library has all of a content: its list with every node and chunk, or its one chunk; each a thing that
    // HasChunk would say yes to. What is in doubt is not had: it is cut, and so healed. Called from any thread.
    virtual bool HasContent(const ObjectId& /*content*/, uint64_t /*size*/) const { return false; }
    virtual Status AppendBlock(CompressedBlock block) = 0;  // writes it and indexes its rows
  };
  // Receives the content's id and size; called from the writer's own thread, in the order contents were given. Not
  // called any more once the writer has failed. It may write objects, but give the writer nothing.
  using Done = std::function<void(const ObjectId& content, uint64_t size)>;

  ContentWriter(Sink& sink, ObjectWriter& objects, Options options);
  ~ContentWriter();  // abandons what was not flushed

  // One whole content. Blocks while the queue is full. An error is the writer's first error, and sticks.
  // `done_bytes`: what `done` itself holds, which counts as bytes on their way.
  Status Put(std::string bytes, Done done, size_t done_bytes = 0);
  // One content in pieces, for files that are not held in memory. One stream at a time, on the caller's thread;
  // Put may not be called between Begin and End.
  Status Begin(Done done, size_t done_bytes = 0);
  Status Append(std::string_view bytes);
  Status AppendZeros(uint64_t length);  // as so many zero bytes, but takes no memory: they are hashed, no more
  Status End();
  Status AbortStream();  // forgets the stream that was begun (its chunks may stay as garbage)

  // The barrier: when it returns, every `done` has been called and every block was handed to the sink.
  Status Flush();
  struct Statistics {
    uint64_t bytes_in = 0, new_chunk_bytes = 0, stored_bytes = 0, chunks = 0, new_chunks = 0;
  };
  Statistics statistics() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mirage
