/* A library that the tests load, copy, replace and delete. MODULE_NUMBER tells the variants. */
int module_entry(void);

int module_entry(void) {
  return MODULE_NUMBER;
}
