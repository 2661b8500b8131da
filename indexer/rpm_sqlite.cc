#include "indexer/rpm_sqlite.h"

#include <sqlite3.h>

#include <memory>

namespace mirage {
namespace {

constexpr size_t kHeaderBytes = 100;
constexpr size_t kReadVersion = 19, kWriteVersion = 18;  // 1: rollback journal, 2: write-ahead log
constexpr int kMaxBlobBytes = 32 << 20;
constexpr int kMaxRows = 1 << 20;

tl::unexpected<Error> Damaged(sqlite3* db) {
  return Fail(EIO, "the rpm database is damaged: {}", db != nullptr ? sqlite3_errmsg(db) : "no sqlite database");
}

}  // namespace

void PrepareSqlite() {
  sqlite3_initialize();
  char byte = 0;
  sqlite3_randomness(sizeof byte, &byte);
}

Status SendRpmHeaders(const DiskWindow& file, ReaderOutput& output) {
  if (file.size() < kHeaderBytes) return Damaged(nullptr);
  // Owned by us: sqlite neither frees nor grows it.
  std::string bytes(static_cast<size_t>(file.size()), '\0');
  TRY(file.ReadAt(0, bytes.data(), bytes.size()));
  // A database in memory has no write-ahead log, and refuses one that says it has. The log itself is looked at by who
  // sends us the file.
  if (bytes[kWriteVersion] == 2) bytes[kWriteVersion] = 1;
  if (bytes[kReadVersion] == 2) bytes[kReadVersion] = 1;
  sqlite3* opened = nullptr;
  const int code = sqlite3_open_v2(":memory:", &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, nullptr);
  const std::unique_ptr<sqlite3, int (*)(sqlite3*)> db(opened, sqlite3_close);
  if (code != SQLITE_OK) return Damaged(opened);
  const auto size = static_cast<sqlite3_int64>(bytes.size());
  if (sqlite3_deserialize(opened, "main", reinterpret_cast<unsigned char*>(bytes.data()), size, size,
                          SQLITE_DESERIALIZE_READONLY) != SQLITE_OK) {
    return Damaged(opened);
  }
  // The schema is the image's: nothing in it may call functions, and no row is without bounds.
  sqlite3_db_config(opened, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(opened, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(opened, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(opened, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  sqlite3_limit(opened, SQLITE_LIMIT_LENGTH, kMaxBlobBytes);
  sqlite3_limit(opened, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_stmt* prepared = nullptr;
  if (sqlite3_prepare_v2(opened, "SELECT blob FROM main.Packages ORDER BY hnum", -1, &prepared, nullptr) != SQLITE_OK) {
    return Damaged(opened);
  }
  const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(prepared, sqlite3_finalize);
  for (int rows = 0;; ++rows) {
    const int step = sqlite3_step(prepared);
    if (step == SQLITE_DONE) return {};
    if (step != SQLITE_ROW || rows > kMaxRows) return Damaged(opened);
    const auto* const blob = static_cast<const char*>(sqlite3_column_blob(prepared, 0));
    const int length = sqlite3_column_bytes(prepared, 0);
    if (blob == nullptr) return Damaged(opened);
    TRY(output.SendBytes(std::string_view(blob, static_cast<size_t>(length))));
    TRY(output.Send(RecordKind::kEndFile, {}));
  }
}

}  // namespace mirage
