#include "store/ref_log.h"

#include <array>
#include <charconv>

namespace mirage {
namespace {

constexpr uint64_t kMaxLineBytes = 1 << 20;
constexpr size_t kReadBytes = 1 << 20;

// Bytes outside printable ASCII, space and '%' as %XX.
std::string PercentEncode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte <= 0x20 || byte >= 0x7f || c == '%') {
      out += fmt::format("%{:02X}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned byte = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16);
    if (error != std::errc() || end != text.data() + i + 3) return std::nullopt;
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

template <typename T>
bool ParseNumber(std::string_view text, T* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string HexOrDash(const ObjectId& id) { return id.IsZero() ? "-" : id.Hex(); }

std::optional<ObjectId> ParseHexOrDash(std::string_view text) {
  if (text == "-") return ObjectId();
  return ObjectId::FromHex(text);
}

Status CheckName(std::string_view name, std::string_view what) {
  const auto bad = [&](std::string_view why) {
    return Fail(EINVAL,
                "{} name \"{}\": {}; use letters, digits, '.', '_' and '-', not starting with '.' or '-', no \"..\", at "
                "most 128 bytes",
                what, PercentEncode(name), why);
  };
  if (name.empty()) return bad("empty");
  if (name.size() > 128) return bad("too long");
  if (name[0] == '.' || name[0] == '-') return bad("bad first character");
  if (name.find("..") != std::string_view::npos) return bad("contains \"..\"");
  for (const char c : name) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                      c == '_' || c == '-';
    if (!good) return bad("bad character");
  }
  return {};
}

}  // namespace

Status CheckBranchName(std::string_view name) { return CheckName(name, "branch"); }

Status CheckTagName(std::string_view name) {
  TRY(CheckName(name, "tag"));
  if (name == "latest") return Fail(EINVAL, "tag name \"latest\": reserved for the head's first tag; choose another");
  return {};
}

std::string EncodeRefRecord(const RefRecord& record, const ObjectId& chain, ObjectId* new_chain) {
  std::string moves;
  for (const RefMove& move : record.moves) {
    if (!moves.empty()) moves += ' ';
    moves += fmt::format("{}:{}:{}", move.name, HexOrDash(move.from), HexOrDash(move.to));
  }
  std::string line = fmt::format("{}\t{}.{:09}\t{}\t{}\t{}\t", record.sequence, record.time_sec, record.time_nsec,
                                 PercentEncode(record.who), PercentEncode(record.action), moves);
  *new_chain = HashBytes(std::string(chain.view()) + line);
  return line + new_chain->Hex() + "\n";
}

Result<RefRecord> DecodeRefRecord(std::string_view line, const ObjectId& chain, ObjectId* new_chain) {
  const auto bad = [](std::string_view why) { return Fail(EIO, "{}", why); };
  if (line.empty() || line.back() != '\n') return bad("does not end in a newline");
  line.remove_suffix(1);
  const size_t last_tab = line.rfind('\t');
  if (last_tab == std::string_view::npos) return bad("has no fields");
  const std::string_view body = line.substr(0, last_tab + 1);
  *new_chain = HashBytes(std::string(chain.view()) + std::string(body));
  // As text: digits that mean the same, in capital letters, are not what was written.
  if (line.substr(last_tab + 1) != new_chain->Hex()) return bad("checksum does not match");
  const auto fields = Split(body, '\t');
  if (fields.size() != 6) return bad("has the wrong number of fields");
  RefRecord record;
  const auto time = Split(fields[1], '.');
  const auto who = PercentDecode(fields[2]), action = PercentDecode(fields[3]);
  if (!ParseNumber(fields[0], &record.sequence) || time.size() != 2 || !ParseNumber(time[0], &record.time_sec) ||
      time[1].size() != 9 || !ParseNumber(time[1], &record.time_nsec) || !who || !action) {
    return bad("has a malformed field");
  }
  record.who = *who;
  record.action = *action;
  if (fields[4].empty()) return record;  // of a collection
  for (const std::string_view text : Split(fields[4], ' ')) {
    const auto parts = Split(text, ':');
    if (parts.size() != 3) return bad("has a malformed move");
    const auto from = ParseHexOrDash(parts[1]), to = ParseHexOrDash(parts[2]);
    const auto names = Split(parts[0], '/');
    const bool named = names.size() <= 2 && CheckBranchName(names[0]) && (names.size() == 1 || CheckTagName(names[1]));
    if (!from || !to || !named) return bad("has a malformed move");
    record.moves.push_back({std::string(parts[0]), *from, *to});
  }
  return record;
}

Status RefLog::Create(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(const auto file, env.Open(path, OpenMode::kCreate));
  TRY(file->WriteAt(0, kRefLogHeader));
  return file->Sync();
}

Result<LogPosition> RefLog::Replay(const LogPosition& from,
                                   const std::function<Status(const RefRecord&)>& visit) const {
  ASSIGN_OR_RETURN(const auto file, env_.Open(path_, OpenMode::kRead));
  LogPosition at = from;
  std::string buffer;
  if (at.offset == 0) {
    TRY(file->ReadAt(0, kRefLogHeader.size(), &buffer));
    if (buffer != kRefLogHeader) return Fail(EIO, "{}: not a ref log; run fsck", path_);
    at.offset = kRefLogHeader.size();
  } else {
    ASSIGN_OR_RETURN(const uint64_t size, file->Size());
    if (size < at.offset) return Fail(EIO, "{}: {} bytes are missing at its end; run fsck", path_, at.offset - size);
  }
  buffer.clear();
  uint64_t buffer_at = at.offset;  // file offset of buffer[0]
  size_t used = 0;
  bool end = false;
  // A record that does not check, if it is the last, was never committed; with a valid one behind it, it is damage.
  // "Valid" there is what can be said without the chain: whole, and carrying the next number.
  std::optional<std::string> invalid;
  while (true) {
    const size_t newline = buffer.find('\n', used);
    if (newline == std::string::npos) {
      if (end || buffer.size() - used > kMaxLineBytes) break;
      buffer.erase(0, used);
      buffer_at += used;
      used = 0;
      std::string more;
      TRY(file->ReadAt(buffer_at + buffer.size(), kReadBytes, &more));
      end = more.empty();
      buffer += more;
      continue;
    }
    const std::string_view line(buffer.data() + used, newline + 1 - used);
    if (invalid) {
      return Fail(EIO, "{}: the record at byte {} {}, and there are records behind it; run fsck", path_, at.offset,
                  *invalid);
    }
    ObjectId chain;
    auto record = DecodeRefRecord(line, at.chain, &chain);
    if (record && record->sequence != at.sequence + 1) {
      record = Fail(EIO, "has number {} where {} is due", record->sequence, at.sequence + 1);
    }
    used = newline + 1;
    if (!record) {
      invalid = record.error().message;
      continue;
    }
    TRY(visit(*record));
    at.sequence = record->sequence;
    at.offset += line.size();
    at.chain = chain;
  }
  return at;
}

Result<LogPosition> RefLog::Append(const LogPosition& at, const RefRecord& record) {
  ASSIGN_OR_RETURN(const auto file, env_.Open(path_, OpenMode::kReadWrite));
  ASSIGN_OR_RETURN(const uint64_t size, file->Size());
  if (size > at.offset) TRY(file->Truncate(at.offset));
  LogPosition next{record.sequence, at.offset, {}};
  const std::string line = EncodeRefRecord(record, at.chain, &next.chain);
  auto written = file->WriteAt(at.offset, line);
  if (written) written = file->Sync();
  if (!written) {
    (void)file->Truncate(at.offset);  // best effort: an unsynced record is cut off by the next writer in any case
    return tl::make_unexpected(written.error());
  }
  next.offset += line.size();
  return next;
}

Status RefLog::Sync() {
  ASSIGN_OR_RETURN(const auto file, env_.Open(path_, OpenMode::kReadWrite));
  return file->Sync();
}

Result<uint64_t> RefLog::SizeBytes() const {
  ASSIGN_OR_RETURN(const FileInfo info, env_.Stat(path_));
  return info.size_bytes;
}

}  // namespace mirage
