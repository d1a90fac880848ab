#include "model.hpp"

namespace sara_finetune {

template class moe_model<float>;

}   // namespace sara_finetune
