// Linked with one object for each header: a definition that is not inline stands in several of them and does not link.
int main() {}
