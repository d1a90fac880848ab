#include "small_model.hpp"

#include "oracle/instances.hpp"

template class sara_finetune::moe_model<double>;
