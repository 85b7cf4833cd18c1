job "web" {
  group "a" {
  }
}
