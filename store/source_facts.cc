#include "store/source_facts.h"

#include <xxhash.h>

#include <algorithm>

#include "store/encoding.h"
#include "store/format.h"
#include "store/object.h"

namespace mirage {
namespace {

constexpr std::string_view kMagic = "MIRAGESF";
constexpr uint32_t kVersion = 2;
constexpr size_t kRowBytes = 44;            // without its key
constexpr uint32_t kNoFilesystem = UINT32_MAX;
constexpr size_t kBlockBytes = 64 << 10;    // a writer closes a block here,
constexpr size_t kBlockKeyBytes = 1 << 20;  // or when its keys, written out, take so much
constexpr size_t kMaxBlockBytes = 256 << 10;
constexpr size_t kMaxBlockKeyBytes = 4 << 20;
constexpr size_t kMaxIndexBytes = 4 << 20;  // 50,000 blocks, 70 million files
constexpr size_t kCachedBlocks = 16;
constexpr uint32_t kNanoseconds = 1'000'000'000;

tl::unexpected<Error> Damaged(std::string_view what) { return Fail(EIO, "source facts: {}", what); }

size_t Shared(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}
std::string Key(std::string_view path) {
  std::string key(path);
  std::replace(key.begin(), key.end(), '/', '\0');
  return key;
}
uint64_t Checksum(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace

std::string EncodeFactsBlock(const std::vector<FactsRow>& rows) {
  std::string out;
  std::string_view last;
  for (const auto& [key, file] : rows) {
    const size_t shared = Shared(last, key);
    const FileFacts facts = file.facts.value_or(FileFacts{.filesystem = kNoFilesystem});
    Put<uint16_t>(&out, static_cast<uint16_t>(shared));
    Put<uint16_t>(&out, static_cast<uint16_t>(key.size() - shared));
    Put<uint32_t>(&out, facts.filesystem);
    Put<uint64_t>(&out, facts.inode);
    Put<int64_t>(&out, facts.ctime_sec);
    Put<uint32_t>(&out, facts.ctime_nsec);
    out += file.fingerprint.view();
    out.append(key, shared);
    last = key;
  }
  return out;
}

Result<std::vector<FactsRow>> DecodeFactsBlock(std::string_view bytes) {
  if (bytes.size() > kMaxBlockBytes) return Damaged("a block that is too long");
  Decoder in(bytes);
  std::vector<FactsRow> rows;
  size_t key_bytes = 0;
  while (in.ok() && in.left() > 0) {
    const uint16_t shared = in.Take<uint16_t>(), length = in.Take<uint16_t>();
    FileFacts facts;
    facts.filesystem = in.Take<uint32_t>();
    facts.inode = in.Take<uint64_t>();
    facts.ctime_sec = in.Take<int64_t>();
    facts.ctime_nsec = in.Take<uint32_t>();
    SourceFile file;
    file.fingerprint.bytes = in.Array<16>();
    if (facts.filesystem != kNoFilesystem) {
      file.facts = facts;
    } else if (facts != FileFacts{.filesystem = kNoFilesystem} || file.fingerprint.IsZero()) {
      return Damaged("a row that says nothing");
    }
    const std::string_view rest = in.Bytes(length);
    const std::string_view last = rows.empty() ? std::string_view() : std::string_view(rows.back().first);
    key_bytes += size_t{shared} + length;
    if (!in.ok() || shared > last.size() || size_t{shared} + length > kMaxPathBytes ||
        facts.ctime_nsec >= kNanoseconds || key_bytes > kMaxBlockKeyBytes) {
      return Damaged("an impossible row");
    }
    std::string key(last.substr(0, shared));
    key += rest;
    // One encoding alone: as much is shared as can be, and keys ascend.
    if (!rows.empty() && (key <= last || Shared(last, key) != shared)) return Damaged("rows out of order");
    rows.emplace_back(std::move(key), file);
  }
  if (!in.AtEnd()) return Damaged("a block that is cut off");
  return rows;
}

std::string EncodeFactsIndex(const FactsIndex& index) {
  std::string out;
  Put<uint32_t>(&out, static_cast<uint32_t>(index.filesystems.size()));
  for (const FactsFilesystem& filesystem : index.filesystems) {
    Put<int64_t>(&out, filesystem.after_sec);
    Put<int64_t>(&out, filesystem.before_sec);
    Put<uint16_t>(&out, static_cast<uint16_t>(filesystem.identity.size()));
    out += filesystem.identity;
  }
  Put<uint32_t>(&out, static_cast<uint32_t>(index.blocks.size()));
  for (const FactsIndex::Block& block : index.blocks) {
    Put<uint64_t>(&out, block.offset);
    Put<uint64_t>(&out, block.checksum);
    Put<uint32_t>(&out, block.length);
    Put<uint16_t>(&out, static_cast<uint16_t>(block.first.size()));
    out += block.first;
  }
  return out;
}

Result<FactsIndex> DecodeFactsIndex(std::string_view bytes) {
  if (bytes.size() > kMaxIndexBytes) return Damaged("an index that is too long");
  Decoder in(bytes);
  FactsIndex index;
  const auto filesystems = in.Take<uint32_t>();
  if (filesystems > kMaxFactsFilesystems) return Damaged("too many filesystems");
  for (uint32_t i = 0; i < filesystems && in.ok(); ++i) {
    FactsFilesystem filesystem;
    filesystem.after_sec = in.Take<int64_t>();
    filesystem.before_sec = in.Take<int64_t>();
    const auto length = in.Take<uint16_t>();
    if (length > kMaxIdentityBytes) return Damaged("a filesystem's name that is too long");
    filesystem.identity = in.Bytes(length);
    index.filesystems.push_back(std::move(filesystem));
  }
  const auto blocks = in.Take<uint32_t>();
  uint64_t offset = 0;
  for (uint32_t i = 0; i < blocks && in.ok(); ++i) {
    FactsIndex::Block block;
    block.offset = in.Take<uint64_t>();
    block.checksum = in.Take<uint64_t>();
    block.length = in.Take<uint32_t>();
    block.first = in.Bytes(in.Take<uint16_t>());
    if (block.offset != offset || block.length > kMaxBlockBytes ||
        (!index.blocks.empty() && block.first <= index.blocks.back().first)) {
      return Damaged("an impossible index");
    }
    offset += block.length;
    index.blocks.push_back(std::move(block));
  }
  if (!in.AtEnd()) return Damaged("an index that is cut off");
  return index;
}

std::string EncodeFactsFooter(const FactsFooter& footer) {
  std::string out(kMagic);
  Put<uint32_t>(&out, kVersion);
  Put<uint32_t>(&out, footer.made_in);
  PutId(&out, footer.manifest);
  out += footer.key.view();
  Put<uint64_t>(&out, footer.index_offset);
  Put<uint64_t>(&out, footer.index_length);
  Put<uint64_t>(&out, footer.index_checksum);
  Put<uint64_t>(&out, Checksum(out));
  return out;
}

Result<FactsFooter> DecodeFactsFooter(std::string_view bytes) {
  if (bytes.size() != kFactsFooterBytes || !bytes.starts_with(kMagic)) return Damaged("no such file");
  Decoder in(bytes.substr(kMagic.size()));
  if (in.Take<uint32_t>() != kVersion) return Damaged("of another version");
  FactsFooter footer;
  footer.made_in = in.Take<uint32_t>();
  footer.manifest = in.Id();
  footer.key.bytes = in.Array<16>();
  footer.index_offset = in.Take<uint64_t>();
  footer.index_length = in.Take<uint64_t>();
  footer.index_checksum = in.Take<uint64_t>();
  if (in.Take<uint64_t>() != Checksum(bytes.substr(0, bytes.size() - sizeof(uint64_t)))) {
    return Damaged("its end does not check");
  }
  return footer;
}

Result<std::unique_ptr<SourceFactsWriter>> SourceFactsWriter::Create(Env& env, const std::string& path) {
  std::unique_ptr<SourceFactsWriter> writer(new SourceFactsWriter(env, path));
  ASSIGN_OR_RETURN(writer->file_, env.Open(path, OpenMode::kCreate));
  return writer;
}

Status SourceFactsWriter::Add(std::string_view path, const SourceFile& file) {
  std::string key = Key(path);
  encoded_bytes_ += kRowBytes + key.size() - (rows_.empty() ? 0 : Shared(rows_.back().first, key));
  key_bytes_ += key.size();
  rows_.emplace_back(std::move(key), file);
  return encoded_bytes_ >= kBlockBytes || key_bytes_ >= kBlockKeyBytes ? WriteBlock() : Status();
}

Status SourceFactsWriter::WriteBlock() {
  if (rows_.empty()) return {};
  const std::string bytes = EncodeFactsBlock(rows_);
  TRY(file_->WriteAt(offset_, bytes));
  index_.blocks.push_back({offset_, Checksum(bytes), static_cast<uint32_t>(bytes.size()), rows_.front().first});
  offset_ += bytes.size();
  rows_.clear();
  encoded_bytes_ = key_bytes_ = 0;
  return {};
}

Status SourceFactsWriter::Finish(const std::vector<FactsFilesystem>& filesystems, const FingerprintKey& key) {
  TRY(WriteBlock());
  index_.filesystems = filesystems;
  const std::string bytes = EncodeFactsIndex(index_);
  if (bytes.size() > kMaxIndexBytes) return Fail(E2BIG, "source facts of too many files");
  TRY(file_->WriteAt(offset_, bytes));
  footer_ = {{}, 0, key, offset_, bytes.size(), Checksum(bytes)};
  offset_ += bytes.size();
  return {};
}

Status SourceFactsWriter::Keep(const std::string& library_path, const std::string& branch, const ObjectId& manifest,
                               uint64_t made_in) {
  footer_.manifest = manifest;
  footer_.made_in = static_cast<uint32_t>(made_in);
  TRY(file_->WriteAt(offset_, EncodeFactsFooter(footer_)));
  if (const Status made = env_.MakeDirectory(library_path + "/facts", 0700); !made && made.error().code != EEXIST) {
    return made;
  }
  return env_.Rename(path_, SourceFactsPath(library_path, branch));
}

Result<std::unique_ptr<SourceFactsReader>> SourceFactsReader::Open(Env& env, const std::string& path) {
  std::unique_ptr<SourceFactsReader> reader(new SourceFactsReader());
  ASSIGN_OR_RETURN(reader->file_, env.Open(path, OpenMode::kRead));
  const File& file = *reader->file_;
  ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  if (size < kFactsFooterBytes) return Damaged("too short");
  std::string bytes;
  TRY(file.ReadAt(size - kFactsFooterBytes, kFactsFooterBytes, &bytes));
  ASSIGN_OR_RETURN(reader->footer_, DecodeFactsFooter(bytes));
  const FactsFooter& footer = reader->footer_;
  if (footer.index_length > kMaxIndexBytes || footer.index_offset > size ||
      footer.index_length != size - kFactsFooterBytes - footer.index_offset) {
    return Damaged("an impossible index");
  }
  TRY(file.ReadAt(footer.index_offset, static_cast<size_t>(footer.index_length), &bytes));
  if (Checksum(bytes) != footer.index_checksum) return Damaged("its index does not check");
  ASSIGN_OR_RETURN(reader->index_, DecodeFactsIndex(bytes));
  const auto& blocks = reader->index_.blocks;
  const uint64_t end = blocks.empty() ? 0 : blocks.back().offset + blocks.back().length;
  if (end != footer.index_offset) return Damaged("an impossible index");
  return reader;
}

Result<std::vector<FactsRow>> SourceFactsReader::ReadBlock(size_t number) const {
  const FactsIndex::Block& block = index_.blocks[number];
  std::string bytes;
  TRY(file_->ReadAt(block.offset, block.length, &bytes));
  if (bytes.size() != block.length || Checksum(bytes) != block.checksum) return Damaged("a block does not check");
  ASSIGN_OR_RETURN(auto rows, DecodeFactsBlock(bytes));
  if (rows.empty() || rows.front().first != block.first) return Damaged("a block of another place");
  for (const auto& [key, file] : rows) {
    if (file.facts && file.facts->filesystem >= index_.filesystems.size()) return Damaged("a row of no filesystem");
  }
  return rows;
}

std::optional<SourceFile> SourceFactsReader::Find(std::string_view path) {
  const std::string key = Key(path);
  const auto after = std::upper_bound(index_.blocks.begin(), index_.blocks.end(), key,
                                      [](const std::string& k, const FactsIndex::Block& b) { return k < b.first; });
  if (after == index_.blocks.begin()) return std::nullopt;
  const auto number = static_cast<size_t>(after - index_.blocks.begin() - 1);
  auto cached = std::find_if(cache_.begin(), cache_.end(), [&](const Cached& c) { return c.number == number; });
  if (cached == cache_.end()) {
    auto rows = ReadBlock(number);
    if (!rows) rows.emplace();  // as if it were not there
    if (cache_.size() == kCachedBlocks) cache_.pop_back();
    cached = cache_.insert(cache_.begin(), {number, std::move(*rows)});
  } else if (cached != cache_.begin()) {
    std::rotate(cache_.begin(), cached, cached + 1);
    cached = cache_.begin();
  }
  const auto row = std::lower_bound(cached->rows.begin(), cached->rows.end(), key,
                                    [](const FactsRow& r, const std::string& k) { return r.first < k; });
  if (row == cached->rows.end() || row->first != key) return std::nullopt;
  return row->second;
}

Status SourceFactsReader::Check() {
  for (size_t i = 0; i < index_.blocks.size(); ++i) {
    if (auto rows = ReadBlock(i); !rows) return tl::make_unexpected(std::move(rows).error());
  }
  return {};
}

std::string SourceFactsPath(const std::string& library_path, const std::string& branch) {
  return library_path + "/facts/" + branch;
}

std::vector<std::string> CheckSourceFacts(Env& env, const std::string& library_path, bool remove) {
  std::vector<std::string> wrong;
  const auto names = env.List(library_path + "/facts");
  if (!names) return wrong;  // no import has left any
  for (const std::string& name : *names) {
    const std::string path = SourceFactsPath(library_path, name);
    const auto reader = SourceFactsReader::Open(env, path);
    const Status status = reader ? (*reader)->Check() : Status(tl::make_unexpected(reader.error()));
    if (status) continue;
    const bool removed = remove && env.Unlink(path);
    wrong.push_back(fmt::format("facts/{}: {}; {}: the next import of that branch reads every file", name,
                                status.error().message, removed ? "removed" : "of no use"));
  }
  return wrong;
}

void SweepSourceFacts(Env& env, const std::string& library_path,
                      const std::function<bool(const std::string& branch)>& exists) {
  const auto names = env.List(library_path + "/facts");
  if (!names) return;
  for (const std::string& name : *names) {
    if (!exists(name)) (void)env.Unlink(SourceFactsPath(library_path, name));
  }
}

}  // namespace mirage
