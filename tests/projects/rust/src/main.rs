fn main() {
    println!("hello number {}", itoa::Buffer::new().format(6 * 7));
}
