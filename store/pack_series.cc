#include "store/pack_series.h"

#include "store/library_impl.h"

namespace mirage {

Result<Location> PackSeries::Append(const CompressedBlock& block) {
  if (writer_ && writer_->size_bytes() >= kPackTargetBytes) TRY(Seal());
  if (!writer_) {
    const PackNumber number = std::stoull(RandomHex(8), nullptr, 16);
    ASSIGN_OR_RETURN(writer_, PackWriter::Create(env_, directory_ + "/" + PackFileName(number), number, uuid_));
  }
  return writer_->Append(block);
}

Status PackSeries::Seal() {
  if (!writer_) return {};
  TRY(writer_->Finish());
  sealed_.push_back(writer_->number());
  sealed_bytes_ += writer_->size_bytes();
  writer_.reset();
  return {};
}

Status PackSeries::MoveTo(const std::string& packs_directory) {
  for (; moved_ < sealed_.size(); ++moved_) {
    const std::string name = "/" + PackFileName(sealed_[moved_]);
    TRY(env_.Rename(directory_ + name, packs_directory + name));
  }
  return {};
}

void PackSeries::TakeBack(const std::string& packs_directory) {
  for (size_t i = 0; i < moved_; ++i) (void)env_.Unlink(packs_directory + "/" + PackFileName(sealed_[i]));
}

}  // namespace mirage
